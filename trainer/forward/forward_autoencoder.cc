#include "trainer/forward/forward_autoencoder.h"

#include <algorithm>
#include <cstddef>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "models/autoencoder/autoencoder.h"
#include "models/weights/folder_tensors.h"
#include "models/weights/tensor_source.h"
#include "nlohmann/json.hpp"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/core/status.h"
#include "runtime/device/compute_device.h"
#include "runtime/device/host.h"
#include "runtime/device/kernel_libraries.h"
#include "runtime/ops/pointwise.h"
#include "trainer/job/memory_limit.h"

namespace trireme {
namespace {

constexpr char kPictures[] = "x";
constexpr char kLatents[] = "z";

struct Values {
  Shape shape;
  std::vector<double> values;
};

absl::Status CheckOptions(const ForwardOptions& options) {
  const char* unused = options.gradients          ? "gradients"
                       : options.ema              ? "ema"
                       : options.plan.has_value() ? "plan"
                                                  : nullptr;
  if (unused != nullptr) {
    return InvalidArgument(
        "--{}: found with an autoencoder, expected without it", unused);
  }
  if (options.dtype == DType::kFloat32 || options.dtype == DType::kFloat64) {
    return absl::OkStatus();
  }
  return InvalidArgument(
      "--precision: found {} with an autoencoder, expected FP32 or FP64",
      DTypeName(options.dtype));
}

// The tensor as samples of `channels`, of at least `least` rows and columns.
absl::StatusOr<Values> ReadSamples(const SafetensorsFile& file,
                                   const std::string& name, int64_t channels,
                                   int64_t least) {
  ASSIGN_OR_RETURN(const std::span<const std::byte> bytes, file.Data(name));
  const SafetensorsFile::Entry& entry = file.tensors().at(name);
  const Shape& shape = entry.shape;
  if (!IsFloating(entry.dtype) || shape.rank() != 4 || shape.dim(0) < 1 ||
      shape.dim(1) != channels || shape.dim(2) < least ||
      shape.dim(3) < least) {
    return InvalidArgument(
        "{}: {}: found {} {}, expected numbers [n, {}, height, width] with "
        "height and width of at least {}",
        file.path(), name, DTypeName(entry.dtype), shape.ToString(), channels,
        least);
  }
  Values values{shape, std::vector<double>(shape.num_elements())};
  ReadElements(entry.dtype, bytes, 0, values.values);
  return values;
}

// Sample i as a tensor of one.
Tensor SampleOf(const Values& all, int64_t i, Device& device, DType dtype) {
  Shape shape = all.shape;
  shape.set_dim(0, 1);
  const int64_t size = shape.num_elements();
  const Tensor values = Upload<double>(
      device, shape,
      std::span<const double>(all.values).subspan(i * size, size));
  return dtype == DType::kFloat64 ? values : Cast(values, dtype);
}

void Append(const Shape& shape, const std::vector<double>& values,
            Values& all) {
  const int64_t before = all.values.empty() ? 0 : all.shape.dim(0);
  all.shape = shape;
  all.shape.set_dim(0, before + shape.dim(0));
  all.values.insert(all.values.end(), values.begin(), values.end());
}

std::map<std::string, Values> Evaluate(const Autoencoder& autoencoder,
                                       const std::map<std::string, Values>& in,
                                       Device& device, DType dtype) {
  std::map<std::string, Values> out;
  for (const auto& [name, values] : in) {
    for (int64_t i = 0; i < values.shape.dim(0); ++i) {
      const Tensor sample = SampleOf(values, i, device, dtype);
      if (name == kLatents) {
        const Tensor pictures = autoencoder.Decode(sample);
        Append(pictures.shape(),
               Download<double>(dtype == DType::kFloat64
                                    ? pictures
                                    : Cast(pictures, DType::kFloat64)),
               out["sample"]);
        continue;
      }
      const Autoencoder::Posterior posterior = autoencoder.Encode(sample);
      Append(posterior.shape, posterior.mean, out["latent_dist.mean"]);
      Append(posterior.shape, posterior.log_variance,
             out["latent_dist.logvar"]);
    }
  }
  return out;
}

absl::Status Write(const std::string& path, DType dtype,
                   const std::map<std::string, Values>& tensors) {
  std::vector<SafetensorsEntry> entries;
  for (const auto& [name, values] : tensors) {
    entries.push_back({name, dtype, values.shape});
  }
  ASSIGN_OR_RETURN(
      const auto writer,
      SafetensorsWriter::Create(path, std::move(entries), OutputMetadata()));
  for (const SafetensorsEntry& entry : writer->entries()) {
    RETURN_IF_ERROR(
        AppendNumbers(*writer, entry, tensors.at(entry.name).values));
  }
  return writer->Commit().status();
}

}  // namespace

bool IsAutoencoderFolder(const std::string& folder) {
  const std::string path = folder + "/config.json";
  const auto json = ReadJsonObject(path);
  if (!json.ok()) return false;
  const auto name = ReadClassName(path, *json);
  return name.ok() && *name == kAutoencoderClass;
}

absl::StatusOr<ForwardReport> ForwardAutoencoder(
    const ForwardOptions& options) {
  RETURN_IF_ERROR(CheckOptions(options));
  RETURN_IF_ERROR(CheckReplacesOutput(options.out));
  ASSIGN_OR_RETURN(const auto file, SafetensorsFile::Open(options.inputs));
  const bool encodes = file->tensors().contains(kPictures);
  const bool decodes = file->tensors().contains(kLatents);
  if (!encodes && !decodes) {
    return InvalidArgument("{}: found neither x nor z, expected one of them",
                           options.inputs);
  }
  for (const auto& [name, entry] : file->tensors()) {
    if (name == kPictures || name == kLatents) continue;
    return InvalidArgument("{}: found tensor '{}', expected x and z",
                           options.inputs, name);
  }
  const std::unique_ptr<Device> device = options.device.Make(
      MemoryLimit(Job(), options.device, options.local_ranks),
      KernelLibraries());
  ASSIGN_OR_RETURN(
      const auto autoencoder,
      Autoencoder::Open(
          options.model, *device,
          {.dtype = options.dtype, .encoder = encodes, .decoder = decodes}));
  const AutoencoderConfig& config = autoencoder->config();
  std::map<std::string, Values> inputs;
  if (encodes) {
    ASSIGN_OR_RETURN(inputs[kPictures],
                     ReadSamples(*file, kPictures, config.picture_channels,
                                 config.reduction()));
  }
  if (decodes) {
    ASSIGN_OR_RETURN(inputs[kLatents],
                     ReadSamples(*file, kLatents, config.latent_channels, 1));
  }
  const auto outputs = Evaluate(*autoencoder, inputs, *device, options.dtype);
  RETURN_IF_ERROR(device->status());
  RETURN_IF_ERROR(Write(options.out, options.dtype, outputs));
  return ForwardReport{.samples = inputs.begin()->second.shape.dim(0),
                       .tensors = static_cast<int64_t>(outputs.size()),
                       .weights = options.model};
}

}  // namespace trireme
