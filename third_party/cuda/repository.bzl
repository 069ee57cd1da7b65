"""Finds NVIDIA's CUDA toolkit.

    cuda_toolkit(name = "cuda")

looks in $CUDA_HOME, beside the nvcc of $PATH and in /usr/local/cuda, and makes

    @cuda//:headers   of the toolkit,
    @cuda//:runtime   its runtime, linked statically: it loads the driver when
                      it is first called, so that a program starts without one,
    @cuda//:nvcc      a script that compiles and refuses kernels that spill
                      registers,
    @cuda//:driver_stub   in the place of a driver,
    @cuda//:toolkit.bzl  with HAVE_TOOLKIT.

Without a toolkit the libraries are empty.
"""

_NVCC = """#!/bin/bash
# nvcc {version}, which fails where a kernel spills registers into memory.
set -uo pipefail
log=$({nvcc} -ccbin {gcc} -Xptxas -v "$@" 2>&1)
code=$?
# What ptxas says of every kernel, but for warnings and errors.
said=$(grep -vE '^ptxas info|bytes stack frame|^$' <<< "$log")
[[ -z $said ]] || printf '%s\\n' "$said" >&2
[[ $code -eq 0 ]] || exit "$code"
spills=$(grep -B1 -E '[1-9][0-9]* bytes spill' <<< "$log" |
  grep -v '^--$')
if [[ -n $spills ]]; then
  printf 'registers are spilled:\\n%s\\n' "$spills" >&2
  exit 1
fi
"""

_FOUND = """package(default_visibility = ["//visibility:public"])

cc_library(
    name = "headers",
    hdrs = glob(["include/**"]),
    includes = ["include"],
)

cc_library(
    name = "runtime",
    srcs = ["lib/libcudart_static.a"],
    linkopts = ["-ldl", "-lpthread", "-lrt"],
    deps = [":headers"],
)

filegroup(
    name = "nvcc",
    srcs = ["nvcc.sh"],
)

# The driver's functions, which fail: what libraries of the toolkit load where
# there is no driver.
filegroup(
    name = "driver_stub",
    srcs = glob(["lib/stubs/libcuda.so"]),
)
"""

_ABSENT = """package(default_visibility = ["//visibility:public"])

cc_library(name = "headers")

cc_library(name = "runtime")

filegroup(name = "nvcc")

filegroup(name = "driver_stub")
"""

def _find(repository):
    homes = []
    if repository.os.environ.get("CUDA_HOME"):
        homes.append(repository.os.environ["CUDA_HOME"])
    nvcc = repository.which("nvcc")
    if nvcc:
        homes.append(str(nvcc.realpath.dirname.dirname))
    homes.append("/usr/local/cuda")
    for home in homes:
        if repository.path(home + "/bin/nvcc").exists:
            return home
    return None

def _cuda_toolkit(repository):
    home = _find(repository)
    repository.file(
        "toolkit.bzl",
        "HAVE_TOOLKIT = {}\n".format(home != None),
    )
    if home == None:
        repository.file("BUILD.bazel", _ABSENT)
        return
    nvcc = home + "/bin/nvcc"
    version = repository.execute([nvcc, "--version"]).stdout.strip()
    repository.file("BUILD.bazel", _FOUND)
    repository.symlink(home + "/include", "include")
    repository.symlink(home + "/lib64", "lib")
    repository.file(
        "nvcc.sh",
        _NVCC.format(
            gcc = repository.os.environ.get("CC", "gcc"),
            nvcc = nvcc,
            version = version.split("\n")[-1],
        ),
        executable = True,
    )

cuda_toolkit = repository_rule(
    implementation = _cuda_toolkit,
    environ = [
        "CC",
        "CUDA_HOME",
        "PATH",
    ],
    local = True,
)
