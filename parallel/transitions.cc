#include "parallel/transitions.h"

#include <cstring>
#include <utility>

#include "fmt/format.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using Kind = AxisState::Kind;

// The slices of `dim` along the group, gathered: collectives work on leading
// dims, so other dims are brought there by copies of contiguous runs.
struct DimLayout {
  int64_t before;
  int64_t run_bytes;  // of one rank's slice, per index before `dim`
};

DimLayout LayoutOf(const Tensor& local, int dim) {
  return {local.shape().elements_before(dim),
          local.dim(dim) * local.shape().elements_after(dim) *
              DTypeSize(local.dtype())};
}

Tensor GatherDim(Communicator& group, const Tensor& local, int dim,
                 std::string_view name) {
  const int n = group.size();
  Shape stacked = local.shape();
  stacked.set_dim(0, local.dim(0) * n);
  const Tensor gathered =
      Tensor::Empty(local.device(), stacked, local.dtype(),
                    MemoryCategory::kCommunication, "all-gather");
  group.AllGather(local, gathered, name).Wait();
  if (dim == 0) return gathered;
  Shape shape = local.shape();
  shape.set_dim(dim, local.dim(dim) * n);
  const Tensor result =
      Tensor::Empty(local.device(), shape, local.dtype(),
                    MemoryCategory::kActivations, "all-gathered activation");
  if (local.device().dry()) return result;
  const auto [before, run] = LayoutOf(local, dim);
  const char* from = static_cast<const char*>(gathered.raw_data());
  char* to = static_cast<char*>(result.raw_data());
  for (int rank = 0; rank < n; ++rank) {
    for (int64_t i = 0; i < before; ++i) {
      std::memcpy(to + (i * n + rank) * run, from + (rank * before + i) * run,
                  run);
    }
  }
  return result;
}

Tensor SliceDim(const Tensor& full, int dim, int parts, int index) {
  CHECK_EQ(full.dim(dim) % parts, 0);
  Shape shape = full.shape();
  shape.set_dim(dim, full.dim(dim) / parts);
  const Tensor local =
      Tensor::Empty(full.device(), shape, full.dtype(),
                    MemoryCategory::kActivations, "activation slice");
  if (full.device().dry()) return local;
  const auto [before, run] = LayoutOf(local, dim);
  const char* from = static_cast<const char*>(full.raw_data());
  char* to = static_cast<char*>(local.raw_data());
  for (int64_t i = 0; i < before; ++i) {
    std::memcpy(to + i * run, from + (i * parts + index) * run, run);
  }
  return local;
}

Tensor ReduceScatterDim(Communicator& group, const Tensor& full, int dim,
                        std::string_view name) {
  const int n = group.size();
  Tensor stacked = full;
  Shape shape = full.shape();
  shape.set_dim(dim, full.dim(dim) / n);
  if (dim != 0) {
    stacked = Tensor::Empty(full.device(), full.shape(), full.dtype(),
                            MemoryCategory::kCommunication, "reduce-scatter");
    if (!full.device().dry()) {
      const int64_t run =
          shape.dim(dim) * shape.elements_after(dim) * DTypeSize(full.dtype());
      const int64_t before = shape.elements_before(dim);
      const char* from = static_cast<const char*>(full.raw_data());
      char* to = static_cast<char*>(stacked.raw_data());
      for (int rank = 0; rank < n; ++rank) {
        for (int64_t i = 0; i < before; ++i) {
          std::memcpy(to + (rank * before + i) * run,
                      from + (i * n + rank) * run, run);
        }
      }
    }
  }
  const Tensor local = Tensor::Empty(full.device(), shape, full.dtype(),
                                     MemoryCategory::kActivations,
                                     "reduce-scattered activation");
  const Shape rows{n, shape.num_elements()};
  group
      .ReduceScatter(stacked.Reshape(rows),
                     local.Reshape({1, shape.num_elements()}), name)
      .Wait();
  return local;
}

bool IsLegal(Kind from, Kind to) {
  switch (from) {
    case Kind::kInvariant:
      return to == Kind::kReplicate || to == Kind::kShard;
    case Kind::kPartial:
      return to == Kind::kInvariant || to == Kind::kShard;
    case Kind::kShard:
      return to == Kind::kInvariant || to == Kind::kReplicate;
    case Kind::kReplicate:
      return false;
  }
  return false;
}

// The sum must not touch the addends: they may be saved for backward.
Tensor AllReduced(Communicator& group, const Tensor& partial,
                  std::string_view name) {
  const Tensor sum = partial.Clone("all-reduced activation");
  group.AllReduce(sum, ReduceOp::kSum, name).Wait();
  return sum;
}

}  // namespace

ShardedVariable Transition(ForwardContext& context, const ShardedVariable& x,
                           Axis axis, AxisState to) {
  const AxisState from = x.states[axis];
  if (from == to) return x;
  Communicator& group = context.parallel.communicators().ForAxis(axis);
  const std::string name = fmt::format("{} {} to {}", AxisName(axis),
                                       from.ToString(), to.ToString());
  const auto record = [&](Tensor value, Tape::BackwardFunction backward) {
    ShardedVariable result = x;
    result.variable = context.tape.Record(
        name, {x.variable}, {}, std::move(value), {}, std::move(backward));
    result.states[axis] = to;
    return result;
  };
  const auto pass = [](Tape::Gradients& gradients) {
    gradients.Accumulate(0, gradients.TakeOutput());
  };
  if (!IsLegal(from.kind, to.kind)) {
    context.parallel.Refuse(FailedPrecondition(
        "no collective takes an activation of shape {} from {} to {} over {}",
        x.value().shape().ToString(), from.ToString(), to.ToString(),
        AxisName(axis)));
    ShardedVariable unchanged = x;
    unchanged.states[axis] = to;
    return unchanged;
  }
  if (group.size() == 1) return record(x.value(), pass);

  if (from.kind == Kind::kInvariant && to.kind == Kind::kReplicate) {
    return record(x.value(), [&group, name](Tape::Gradients& gradients) {
      Tensor gradient = gradients.TakeOutput();
      if (!gradient.unique()) gradient = gradient.Clone("gradient sum");
      group.AllReduce(gradient, ReduceOp::kSum, name).Wait();
      gradients.Accumulate(0, std::move(gradient));
    });
  }
  if (from.kind == Kind::kPartial && to.kind == Kind::kInvariant) {
    return record(AllReduced(group, x.value(), name), pass);
  }
  if (from.kind == Kind::kPartial && to.kind == Kind::kShard) {
    const int dim = to.dim;
    return record(ReduceScatterDim(group, x.value(), dim, name),
                  [&group, dim, name](Tape::Gradients& gradients) {
                    gradients.Accumulate(
                        0, GatherDim(group, gradients.TakeOutput(), dim, name));
                  });
  }
  if (from.kind == Kind::kShard && to.kind == Kind::kReplicate) {
    const int dim = from.dim;
    return record(
        GatherDim(group, x.value(), dim, name),
        [&group, dim, name](Tape::Gradients& gradients) {
          gradients.Accumulate(
              0, ReduceScatterDim(group, gradients.TakeOutput(), dim, name));
        });
  }
  if (from.kind == Kind::kShard && to.kind == Kind::kInvariant) {
    const int dim = from.dim;
    return record(GatherDim(group, x.value(), dim, name),
                  [&group, dim](Tape::Gradients& gradients) {
                    gradients.Accumulate(
                        0, SliceDim(gradients.TakeOutput(), dim, group.size(),
                                    group.rank()));
                  });
  }
  const int dim = to.dim;  // Invariant → Shard
  return record(SliceDim(x.value(), dim, group.size(), group.rank()),
                [&group, dim, name](Tape::Gradients& gradients) {
                  gradients.Accumulate(
                      0, GatherDim(group, gradients.TakeOutput(), dim, name));
                });
}

}  // namespace trireme
