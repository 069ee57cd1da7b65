"""C++ from .proto files by the system's protoc.

    proto_cc_library(name = "plan_cc_proto", srcs = ["plan.proto"])

Files import one another by their path from the workspace's root, and C++
includes "scheduler/plan/plan.pb.h" (with `grpc = True` also "plan.grpc.pb.h").
"""

_SourcesInfo = provider(
    doc = "The .proto files that importing this target needs.",
    fields = ["transitive"],
)

def _generate(ctx):
    transitive = depset(
        ctx.files.srcs,
        transitive = [dep[_SourcesInfo].transitive for dep in ctx.attr.deps],
    )
    suffixes = [".pb"] + ([".grpc.pb"] if ctx.attr.grpc else [])
    headers, sources = [], []
    for src in ctx.files.srcs:
        stem = src.basename[:-len(".proto")]
        for suffix in suffixes:
            headers.append(ctx.actions.declare_file(stem + suffix + ".h"))
            sources.append(ctx.actions.declare_file(stem + suffix + ".cc"))

    arguments = ctx.actions.args()
    arguments.add("--proto_path=.")
    arguments.add("--proto_path=/usr/include")  # google/protobuf/*.proto
    arguments.add("--cpp_out=" + ctx.bin_dir.path)
    tools = []
    if ctx.attr.grpc:
        tools.append(ctx.executable._grpc_cpp_plugin)
        arguments.add(
            ctx.executable._grpc_cpp_plugin,
            format = "--plugin=protoc-gen-grpc=%s",
        )
        arguments.add("--grpc_out=" + ctx.bin_dir.path)
    arguments.add_all(ctx.files.srcs)
    ctx.actions.run(
        executable = ctx.executable._protoc,
        arguments = [arguments],
        inputs = transitive,
        outputs = headers + sources,
        tools = tools,
        mnemonic = "ProtocCpp",
        progress_message = "Generating C++ of %{label}",
    )
    return [
        DefaultInfo(files = depset(headers + sources)),
        OutputGroupInfo(headers = depset(headers), sources = depset(sources)),
        _SourcesInfo(transitive = transitive),
    ]

_proto_sources = rule(
    implementation = _generate,
    attrs = {
        "deps": attr.label_list(providers = [_SourcesInfo]),
        "grpc": attr.bool(),
        "srcs": attr.label_list(allow_files = [".proto"], mandatory = True),
        "_grpc_cpp_plugin": attr.label(
            default = "@system//:bin/grpc_cpp_plugin",
            allow_single_file = True,
            cfg = "host",
            executable = True,
        ),
        "_protoc": attr.label(
            default = "@system//:bin/protoc",
            allow_single_file = True,
            cfg = "host",
            executable = True,
        ),
    },
)

def _sources_label(dep):
    if ":" not in dep:
        dep = dep + ":" + dep.split("/")[-1]
    return dep + "_sources"

def proto_cc_library(name, srcs, deps = [], grpc = False, **kwargs):
    """A cc_library of the messages (and, with `grpc`, services) in `srcs`.

    Args:
      name: of the library.
      srcs: .proto files of this package.
      deps: proto_cc_library targets whose files `srcs` import.
      grpc: also generate and link gRPC services.
      **kwargs: visibility, testonly, tags.
    """
    _proto_sources(
        name = name + "_sources",
        srcs = srcs,
        grpc = grpc,
        deps = [_sources_label(dep) for dep in deps],
        **kwargs
    )
    for group in ["headers", "sources"]:
        native.filegroup(
            name = name + "_" + group + "_group",
            srcs = [name + "_sources"],
            output_group = group,
            **kwargs
        )
    native.cc_library(
        name = name,
        srcs = [name + "_sources_group"],
        hdrs = [name + "_headers_group"],
        copts = ["-w"],  # generated code is not ours to tidy
        deps = deps + ["//third_party:protobuf"] +
               (["//third_party:grpc"] if grpc else []),
        **kwargs
    )
