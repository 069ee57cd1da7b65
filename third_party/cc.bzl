"""Bazel's C++ rules with the headers precompiled that most sources include.

    load("//third_party:cc.bzl", "cc_library", "cc_test")

halves the time of a build. Targets without it build as well.
"""

def _with(header, copts, deps):
    return {
        "copts": ["-include", "third_party/precompiled/{}.h".format(header)] +
                 copts,
        "deps": deps + ["//third_party/precompiled:" + header],
    }

def cc_library(name, srcs = [], copts = [], deps = [], testonly = False, **kwargs):
    # Without sources there is nothing to compile.
    header = "testing" if testonly else "standard"
    native.cc_library(
        name = name,
        srcs = srcs,
        testonly = testonly,
        **dict(kwargs, **(_with(header, copts, deps) if srcs else {
            "copts": copts,
            "deps": deps,
        }))
    )

def cc_binary(name, copts = [], deps = [], testonly = False, **kwargs):
    header = "testing" if testonly else "standard"
    native.cc_binary(
        name = name,
        testonly = testonly,
        **dict(kwargs, **_with(header, copts, deps))
    )

def cc_test(name, copts = [], deps = [], **kwargs):
    native.cc_test(
        name = name,
        **dict(kwargs, **_with("testing", copts, deps))
    )
