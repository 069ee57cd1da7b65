"""Compiler options of a target with OpenMP pragmas.

    load("//third_party:openmp.bzl", "OPENMP_COPTS")
    cc_library(..., copts = OPENMP_COPTS, deps = ["//third_party:openmp"])
"""

OPENMP_COPTS = ["-fopenmp"]
