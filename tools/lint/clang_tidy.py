"""Runs clang-tidy with Bazel's own compile commands: clang_tidy.py [FILE...].

Checks the C++ sources of the workspace's targets, or only the named files.
Generated headers must have been built. Fails when a file has a warning.
"""

import concurrent.futures
import json
import os
import subprocess
import sys
import tempfile

# GCC's own options, which clang does not know.
GCC_ONLY = ("-fno-canonical-system-headers", "-Wno-free-nonheap-object",
            "-Wunused-but-set-parameter", "-Wno-restrict", "-Werror")


def bazel(*arguments):
    return subprocess.run(("tools/dev/bazel.sh", *arguments), check=True,
                          stdout=subprocess.PIPE, text=True).stdout


def clang_arguments(arguments):
    """Of GCC's: what clang knows, with generated headers as the system's, so
    that nothing in them is a finding."""
    known = [argument for argument in arguments if argument not in GCC_ONLY]
    for i in range(1, len(known)):
        if known[i - 1] == "-iquote" and known[i].startswith("bazel-out/"):
            known[i - 1] = "-isystem"
    return known


def compile_commands(execution_root):
    """Source path -> its entry of a compile_commands.json."""
    actions = json.loads(bazel(
        "aquery", 'mnemonic("CppCompile", //...)', "--output=jsonproto",
        "--include_artifacts=false", "--keep_going"))
    commands = {}
    for action in actions.get("actions", []):
        arguments = action["arguments"]
        source = arguments[arguments.index("-c") + 1]
        if source.startswith(("external/", "bazel-out/")):
            continue
        commands[source] = {
            "directory": execution_root,
            "file": source,
            "arguments": ["clang++"] + clang_arguments(arguments[1:]),
        }
    return commands


def main():
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..",
                          ".."))
    execution_root = bazel("info", "execution_root").strip()
    commands = compile_commands(execution_root)
    wanted = [os.path.normpath(path) for path in sys.argv[1:]]
    unknown = [path for path in wanted if path not in commands]
    if unknown:
        print("clang-tidy: no target compiles", *unknown)
        return 1
    files = wanted or sorted(commands)

    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "compile_commands.json"), "w",
                  encoding="utf-8") as database:
            json.dump(list(commands.values()), database)

        def check(path):
            return subprocess.run(
                ("clang-tidy", "-p", folder, "--quiet",
                 "--config-file=" + os.path.abspath(".clang-tidy"),
                 os.path.join(execution_root, path)),
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                check=False)

        failed = 0
        workers = len(os.sched_getaffinity(0))
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            for path, result in zip(files, pool.map(check, files)):
                if result.returncode != 0:
                    failed += 1
                    print(f"{path}:\n{result.stdout or result.stderr}",
                          flush=True)
    print(f"clang-tidy: {len(files)} files, {failed} with warnings")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
