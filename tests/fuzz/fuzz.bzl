"""Fuzz targets: `fuzz_test` runs one on its seeds and on some thousands of
inputs made of them.

With --config=fuzz the target is a program of libFuzzer's, which goes on until it
is stopped: bazel run --config=fuzz //tests/fuzz:NAME_fuzz -- FOLDER.
"""

load("//third_party:cc.bzl", "cc_test")

def fuzz_test(name, deps, runs = 20000, size = "small"):
    """`name`_fuzz of `name`_fuzz.cc and seeds/`name`/."""
    seeds = native.glob(["seeds/{}/*".format(name)])
    cc_test(
        name = name + "_fuzz",
        size = size,
        srcs = [name + "_fuzz.cc"] + select({
            ":libfuzzer": [],
            "//conditions:default": ["driver.cc"],
        }),
        args = select({
            ":libfuzzer": ["-runs={}".format(runs)],
            "//conditions:default": ["--runs={}".format(runs)],
        }) + ["$(location {})".format(seed) for seed in seeds],
        data = seeds,
        linkopts = select({
            ":libfuzzer": ["-fsanitize=fuzzer"],
            "//conditions:default": [],
        }),
        deps = deps + [
            ":input",
            ":mutator",
            "//third_party:absl",
            "//third_party:fmt",
        ],
    )
