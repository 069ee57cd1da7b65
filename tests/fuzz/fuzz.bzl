"""Fuzz targets: `fuzz_test` runs one on its seeds and on some thousands of
inputs made of them.

Targets are functions as libFuzzer has them: with Clang's -fsanitize=fuzzer in
the place of driver.cc they are its programs.
"""

load("//third_party:cc.bzl", "cc_test")

def fuzz_test(name, deps, runs = 20000, size = "small"):
    """`name`_fuzz of `name`_fuzz.cc and seeds/`name`/."""
    seeds = native.glob(["seeds/{}/*".format(name)])
    cc_test(
        name = name + "_fuzz",
        size = size,
        srcs = [
            "driver.cc",
            name + "_fuzz.cc",
        ],
        args = ["--runs={}".format(runs)] + [
            "$(location {})".format(seed)
            for seed in seeds
        ],
        data = seeds,
        deps = deps + [
            ":coverage",
            ":input",
            ":mutator",
            "//third_party:absl",
            "//third_party:fmt",
        ],
    )
