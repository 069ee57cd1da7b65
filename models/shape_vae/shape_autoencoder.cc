#include "models/shape_vae/shape_autoencoder.h"

#include <algorithm>
#include <utility>

#include "models/shape_vae/shape_vae.h"
#include "parallel/grid/communicators.h"
#include "parallel/sharding/logical_tensors.h"
#include "runtime/comm/single.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/device/host.h"
#include "runtime/ops/distance_loss.h"

namespace trireme {
namespace {

constexpr double kLeastLogVariance = -30;
constexpr double kMostLogVariance = 20;

}  // namespace

struct ShapeAutoencoder::Model {
  Model(const ShapeVaeConfig& config, Device& device)
      : communicators(world, grid),
        parallel(device, grid, communicators),
        store(device, DType::kFloat32, /*seed=*/0),
        part(store, grid, config, {.blocks = {0, config.layers()}}) {}

  Device& device() const { return parallel.device(); }
  // Runs f on a tape of its own, which keeps nothing.
  template <typename F>
  Tensor Evaluate(F&& f) {
    Tape tape(device(), Tape::Mode::kInference);
    ForwardContext context{tape, parallel};
    return std::forward<F>(f)(context).value();
  }

  SingleWorld world;
  ProcessGrid grid;
  Communicators communicators;
  ParallelContext parallel;
  ParameterStore store;
  ShapeVaePart part;
};

class ShapeAutoencoder::DecodedField final : public Field {
 public:
  DecodedField(Model& model, Tensor latents)
      : model_(model), latents_(std::move(latents)) {}

  absl::Status Distances(std::span<const Vector3f> points,
                         std::span<float> values) const override {
    for (size_t first = 0; first < points.size(); first += kMostTogether) {
      const size_t count =
          std::min<size_t>(points.size() - first, kMostTogether);
      std::vector<float> rows(count * kQueryColumns, 0.0F);
      for (size_t i = 0; i < count; ++i) {
        const Vector3f& point = points[first + i];
        rows[i * kQueryColumns] = point.x;
        rows[i * kQueryColumns + 1] = point.y;
        rows[i * kQueryColumns + 2] = point.z;
      }
      const Tensor queries =
          Upload<float>(model_.device(),
                        {1, static_cast<int64_t>(count), kQueryColumns}, rows);
      const Tensor found = model_.Evaluate([&](ForwardContext& context) {
        return model_.part.Values(context, {Variable(latents_), BatchStates()},
                                  queries,
                                  /*with_sides=*/false);
      });
      RETURN_IF_ERROR(model_.device().status());
      const ShapeVaeLosses& losses = model_.part.config().losses;
      const auto unit =
          static_cast<float>(losses.occupancy ? 1 : losses.truncation);
      const std::vector<float> got = Download<float>(found);
      for (size_t i = 0; i < got.size(); ++i) {
        values[first + i] = unit * got[i];
      }
    }
    return absl::OkStatus();
  }

 private:
  Model& model_;
  Tensor latents_;  // as the decoder's blocks leave them
};

ShapeAutoencoder::ShapeAutoencoder(std::unique_ptr<Model> model)
    : model_(std::move(model)) {}

ShapeAutoencoder::~ShapeAutoencoder() = default;

const ShapeVaeConfig& ShapeAutoencoder::config() const {
  return model_->part.config();
}

absl::StatusOr<std::unique_ptr<ShapeAutoencoder>> ShapeAutoencoder::Create(
    const ShapeVaeConfig& config, const TensorSource& weights, Device& device) {
  auto model = std::make_unique<Model>(config, device);
  RETURN_IF_ERROR(device.status());
  std::vector<TensorPart> parts;
  for (const auto& parameter : model->store.parameters()) {
    parts.push_back({.name = parameter->name,
                     .global_shape = parameter->global_shape,
                     .shards = parameter->shards,
                     .local = parameter->value,
                     .end = parameter->local_elements()});
  }
  RETURN_IF_ERROR(ReadParts(weights, parts));
  return std::unique_ptr<ShapeAutoencoder>(
      new ShapeAutoencoder(std::move(model)));
}

std::unique_ptr<ShapeAutoencoder> ShapeAutoencoder::WithoutValues(
    const ShapeVaeConfig& config, Device& device) {
  return std::unique_ptr<ShapeAutoencoder>(
      new ShapeAutoencoder(std::make_unique<Model>(config, device)));
}

absl::StatusOr<ShapeAutoencoder::Posterior> ShapeAutoencoder::Encode(
    std::span<const float> surface) const {
  CHECK_EQ(surface.size() % 6, size_t{0});
  const ShapeVaePart& part = model_->part;
  const Tensor points =
      Upload<float>(model_->device(),
                    {1, static_cast<int64_t>(surface.size()) / 6, 6}, surface);
  const Tensor moments = model_->Evaluate([&](ForwardContext& context) {
    ShardedVariable x = part.Embed(context, points);
    for (int i = 0; i < config().encoder_layers; ++i) {
      x = part.RunBlock(context, i, x);
    }
    return part.Moments(context, x);
  });
  RETURN_IF_ERROR(model_->device().status());
  const std::vector<float> values = Download<float>(moments);
  const auto channels = static_cast<size_t>(config().channels);
  Posterior posterior;
  for (size_t i = 0; i < values.size(); ++i) {
    if (i / channels % 2 == 0) {
      posterior.mean.push_back(values[i]);
    } else {
      posterior.log_variance.push_back(
          std::clamp<double>(values[i], kLeastLogVariance, kMostLogVariance));
    }
  }
  return posterior;
}

absl::StatusOr<std::unique_ptr<const ShapeAutoencoder::Field>>
ShapeAutoencoder::Decode(std::span<const float> latents) const {
  const ShapeVaePart& part = model_->part;
  CHECK_EQ(static_cast<int64_t>(latents.size()),
           config().latents * config().channels);
  const Tensor z = Upload<float>(
      model_->device(), {1, config().latents, config().channels}, latents);
  Tensor decoded = model_->Evaluate([&](ForwardContext& context) {
    ShardedVariable x = part.EmbedLatents(context, part.LocalLatents(z));
    for (int64_t i = config().encoder_layers; i < config().layers(); ++i) {
      x = part.RunBlock(context, static_cast<int>(i), x);
    }
    return x;
  });
  RETURN_IF_ERROR(model_->device().status());
  return std::make_unique<const DecodedField>(*model_, std::move(decoded));
}

}  // namespace trireme
