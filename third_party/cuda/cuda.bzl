"""CUDA sources.

    load("//third_party/cuda:cuda.bzl", "cuda_library")

    cuda_library(name = "norm", srcs = ["norm.cu"], hdrs = ["norm.h"], deps = [...])

By default nvcc compiles the sources for all GPUs in ARCHITECTURES. With
--config=cuda_emulated the host's compiler does, for the emulated GPU of
//runtime/device/cuda/emulation; without a toolkit, or with --define=cuda=off,
the library is empty, and whatever calls it must be left out by `cuda_select`.
"""

load("@bazel_tools//tools/cpp:toolchain_utils.bzl", "find_cpp_toolchain")
load("@cuda//:toolkit.bzl", "HAVE_TOOLKIT")

# Ampere, Hopper, Blackwell; of the last also PTX, for what comes after.
ARCHITECTURES = [
    "-gencode=arch=compute_80,code=sm_80",
    "-gencode=arch=compute_90,code=sm_90",
    "-gencode=arch=compute_100,code=[sm_100,compute_100]",
]

def cuda_select(real = [], emulated = [], off = []):
    """What depends on whether there are GPUs, emulated ones, or none."""
    return select({
        "//third_party/cuda:off": off,
        "//third_party/cuda:emulated": emulated if HAVE_TOOLKIT else off,
        "//conditions:default": real if HAVE_TOOLKIT else off,
    })

def _nvcc_objects(ctx):
    headers = cc_common.merge_cc_infos(
        cc_infos = [dep[CcInfo] for dep in ctx.attr.deps],
    ).compilation_context
    objects = []
    for source in ctx.files.srcs:
        stem = source.basename[:-len(source.extension) - 1]
        output = ctx.actions.declare_file(
            "{}/{}.o".format(ctx.label.name, stem),
        )
        arguments = ctx.actions.args()
        arguments.add_all(ARCHITECTURES)
        arguments.add_all([
            "-std=c++20",
            "-O3",
            "-lineinfo",
            "-Xcompiler=-Wall,-Wextra,-Wno-missing-field-initializers",
            "-I.",
            "-I" + ctx.bin_dir.path,
        ])
        arguments.add_all(headers.system_includes, before_each = "-isystem")
        arguments.add_all(["-c", source.path, "-o", output.path])
        ctx.actions.run(
            executable = ctx.file._nvcc,
            arguments = [arguments],
            inputs = depset(
                [source] + ctx.files.hdrs,
                transitive = [
                    headers.headers,
                    find_cpp_toolchain(ctx).all_files,
                ],
            ),
            outputs = [output],
            env = {"PATH": "/usr/bin:/bin"},
            mnemonic = "Nvcc",
            progress_message = "Compiling %s for GPUs" % source.short_path,
        )
        objects.append(output)
    return [DefaultInfo(files = depset(objects))]

nvcc_objects = rule(
    implementation = _nvcc_objects,
    attrs = {
        "srcs": attr.label_list(allow_files = [".cu"]),
        "hdrs": attr.label_list(allow_files = [".cuh", ".h"]),
        "deps": attr.label_list(providers = [CcInfo]),
        "_nvcc": attr.label(default = "@cuda//:nvcc", allow_single_file = True),
        "_cc_toolchain": attr.label(
            default = "@bazel_tools//tools/cpp:current_cc_toolchain",
        ),
    },
    toolchains = ["@bazel_tools//tools/cpp:toolchain_type"],
)

def cuda_library(name, srcs, hdrs = [], textual_hdrs = [], deps = [], **kwargs):
    """A cc_library of CUDA sources (.cu) and the headers of their launchers."""
    deps = deps + ["@cuda//:headers"]
    if HAVE_TOOLKIT:
        nvcc_objects(
            name = name + "_nvcc",
            srcs = srcs,
            hdrs = hdrs + textual_hdrs,
            tags = ["manual"],
            testonly = kwargs.get("testonly", False),
            deps = deps,
        )
    native.cc_library(
        name = name,
        srcs = cuda_select(
            emulated = srcs,
            real = [":{}_nvcc".format(name)],
        ),
        hdrs = hdrs,
        copts = cuda_select(emulated = [
            # float4 through which floats are read is no alias to GCC.
            "-fno-strict-aliasing",
            # Compiled sooner; and with -O2 GCC 12 merges an access of 16 bytes
            # that an address allows with those of where it does not.
            "-O1",
            "-x",
            "c++",
        ]),
        textual_hdrs = textual_hdrs,
        deps = deps,
        **kwargs
    )
