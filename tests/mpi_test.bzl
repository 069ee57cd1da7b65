"""Tests that run on several ranks under mpirun.

    mpi_test(name = "grid_test", srcs = ["grid_test.cc"], deps = [...], ranks = [2, 4])

builds one GoogleTest program, without a main() of its own (//tests:mpi_main
has it), and makes the tests grid_test_np2 and grid_test_np4, and the suite
grid_test of both.
"""

load("//third_party:cc.bzl", "cc_binary")

def mpi_test(
        name,
        srcs,
        deps = [],
        ranks = [2, 4],
        args = [],
        copts = [],
        data = [],
        tags = [],
        size = "medium",
        timeout = None):
    """A test that every rank runs from beginning to end.

    Args:
      name: of the suite; each test is called name_npN.
      srcs: C++ sources.
      deps: libraries; GoogleTest comes by itself.
      ranks: numbers of ranks to run with.
      args: of the program, on every rank.
      copts: compiler options.
      data: files that the program reads.
      tags: added to the tests.
      size: Bazel's test size, which bounds its time.
      timeout: Bazel's timeout, where the size's is not the right one.
    """
    program = name + "_program"
    cc_binary(
        name = program,
        testonly = True,
        srcs = srcs,
        copts = copts,
        deps = deps + ["//tests:mpi_main"],
    )
    tests = []
    for count in ranks:
        tests.append("{}_np{}".format(name, count))
        native.sh_test(
            name = tests[-1],
            size = size,
            timeout = timeout,
            srcs = ["//tests:mpi_run.sh"],
            args = [str(count), "$(rootpath :{})".format(program)] + args,
            data = data + [":" + program],
            # Two processors' worth: Bazel then runs no more than one of them
            # at a time on a small machine, and several on a large one.
            tags = tags + ["cpu:2"],
        )
    native.test_suite(
        name = name,
        tests = [":" + test for test in tests],
    )
