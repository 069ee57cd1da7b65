#include "models/autoencoder/latent_cache.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "models/data/shard_writer.h"
#include "models/data/webdataset.h"
#include "models/image/resize.h"
#include "models/image/transform.h"
#include "models/weights/folder_tensors.h"
#include "nlohmann/json.hpp"
#include "runtime/core/file.h"
#include "runtime/core/log.h"
#include "runtime/core/shared_folder.h"
#include "runtime/core/status.h"
#include "runtime/device/host.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr int64_t kUsualShardBytes = int64_t{64} << 20;
constexpr int64_t kMostSide = 1 << 14;
constexpr int64_t kMostPictures = int64_t{1} << 40;

std::string DescriptionPath(const std::string& folder) {
  return folder + "/latents.json";
}

std::string ShardPath(const std::string& folder, int64_t shard) {
  return fmt::format("{}/shard-{:06}.tar", folder, shard);
}

bool Exists(const std::string& path) {
  std::error_code error;
  return fs::exists(path, error);
}

Json ToJson(const LatentCache& cache) {
  return {{"autoencoder", cache.autoencoder},
          {"weights_xxh64", cache.weights_checksum},
          {"channels", cache.format.channels},
          {"height", cache.format.height},
          {"width", cache.format.width},
          {"scaling_factor", cache.format.scale},
          {"shift_factor", cache.format.shift},
          {"pictures", cache.pictures},
          {"pictures_hash", cache.pictures_hash},
          {"pictures_per_shard", cache.pictures_per_shard}};
}

// Reads the fields of a description; of what it says wrong the first is kept.
class Description {
 public:
  Description(const std::string& path, const Json& json)
      : path_(path), json_(json) {}

  std::string Text(const char* name) {
    const Json value = Get(name);
    Expect(name, value, value.is_string(), "text");
    return status_.ok() ? value.get<std::string>() : "";
  }
  int64_t Whole(const char* name, int64_t most) {
    const Json value = Get(name);
    Expect(name, value,
           value.is_number_unsigned() && value.get<uint64_t>() >= 1 &&
               value.get<uint64_t>() <= static_cast<uint64_t>(most),
           fmt::format("1 to {}", most));
    return status_.ok() ? value.get<int64_t>() : 1;
  }
  uint64_t Hash(const char* name) {
    const Json value = Get(name);
    Expect(name, value, value.is_number_unsigned(), "a number");
    return status_.ok() ? value.get<uint64_t>() : 0;
  }
  double Number(const char* name) {
    const Json value = Get(name);
    Expect(name, value, value.is_number(), "a number");
    return status_.ok() ? value.get<double>() : 1;
  }
  const absl::Status& status() const { return status_; }

 private:
  Json Get(const char* name) const { return json_.value(name, Json()); }
  void Expect(const char* name, const Json& found, bool good,
              std::string_view expected) {
    if (good) return;
    status_.Update(FailedPrecondition("{}: {}: found {}, expected {}", path_,
                                      name, found.dump(), expected));
  }

  const std::string& path_;
  const Json& json_;
  absl::Status status_;
};

absl::StatusOr<LatentCache> ReadDescription(const std::string& folder) {
  const std::string path = DescriptionPath(folder);
  ASSIGN_OR_RETURN(const Json json, ReadJsonObject(path));
  Description description(path, json);
  LatentCache cache;
  cache.autoencoder = description.Text("autoencoder");
  cache.weights_checksum = description.Text("weights_xxh64");
  cache.format.channels = description.Whole("channels", kMostSide);
  cache.format.height = description.Whole("height", kMostSide);
  cache.format.width = description.Whole("width", kMostSide);
  cache.format.scale = description.Number("scaling_factor");
  cache.format.shift = description.Number("shift_factor");
  cache.pictures = description.Whole("pictures", kMostPictures);
  cache.pictures_hash = description.Hash("pictures_hash");
  cache.pictures_per_shard =
      description.Whole("pictures_per_shard", kMostPictures);
  RETURN_IF_ERROR(description.status());
  return cache;
}

class Writer {
 public:
  Writer(const Dataset& pictures, const LatentCacheOptions& options,
         Device& device, const std::function<void(int64_t)>& progress)
      : pictures_(pictures),
        options_(options),
        device_(device),
        progress_(progress) {}

  absl::Status Open() {
    ASSIGN_OR_RETURN(
        autoencoder_,
        Autoencoder::Open(options_.autoencoder, device_, {.decoder = false}));
    const AutoencoderConfig& config = autoencoder_->config();
    if (options_.side < 1 || options_.side > kMostSide ||
        options_.side % config.reduction() != 0) {
      return InvalidArgument(
          "resolution: found {}, expected a multiple of {} up to {}",
          options_.side, config.reduction(), kMostSide);
    }
    ASSIGN_OR_RETURN(const auto files,
                     FolderTensors::Open(options_.autoencoder));
    std::error_code error;
    cache_.autoencoder = fs::absolute(options_.autoencoder, error).native();
    cache_.weights_checksum = files->Checksum();
    cache_.format = {.channels = config.latent_channels,
                     .height = options_.side / config.reduction(),
                     .width = options_.side / config.reduction(),
                     .scale = config.scale,
                     .shift = config.shift};
    cache_.pictures = pictures_.size();
    cache_.pictures_hash = pictures_.IndexHash();
    const int64_t each =
        8 * cache_.format.channels * cache_.format.height * cache_.format.width;
    cache_.pictures_per_shard =
        options_.pictures_per_shard > 0
            ? options_.pictures_per_shard
            : std::max<int64_t>(kUsualShardBytes / each, 1);
    return Agree();
  }

  absl::Status WriteShards() {
    for (int64_t shard = 0; shard < cache_.shards(); ++shard) {
      RETURN_IF_ERROR(WriteShard(shard));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<LatentCacheSummary> Finish() {
    LatentCacheSummary summary = {.shards = cache_.shards()};
    for (int64_t shard = 0; shard < cache_.shards(); ++shard) {
      summary.elsewhere += !Exists(ShardPath(options_.folder, shard));
    }
    if (summary.elsewhere > 0) return summary;
    RETURN_IF_ERROR(WriteClassNames(options_.folder, ClassNamesIn(pictures_)));
    const auto written =
        OpenWebDataset({.paths = {options_.folder}, .latents = cache_.format});
    if (absl::IsNotFound(written.status())) {
      return NotFound("none of the {} pictures can be read; the first: {}",
                      cache_.pictures, MessageOf(first_error_));
    }
    RETURN_IF_ERROR(written.status());
    summary.samples = (*written)->size();
    summary.skipped = cache_.pictures - summary.samples;
    return summary;
  }

 private:
  // What the folder is of, which all that write to it must agree on; the first
  // one writes it down.
  absl::Status Agree() {
    RETURN_IF_ERROR(WriteUnlessThere(options_.folder,
                                     DescriptionPath(options_.folder),
                                     ToJson(cache_).dump(1) + "\n"));
    ASSIGN_OR_RETURN(const LatentCache found, ReadDescription(options_.folder));
    const Json there = ToJson(found), ours = ToJson(cache_);
    for (const auto& [field, expected] : ours.items()) {
      // The same weights may lie elsewhere by now.
      if (field == "autoencoder" || there[field] == expected) continue;
      return FailedPrecondition(
          "{}: {}: found {}, expected {}: the latents are of other pictures, "
          "weights or options; give these a folder of their own",
          DescriptionPath(options_.folder), field, there[field].dump(),
          expected.dump());
    }
    return absl::OkStatus();
  }

  absl::Status WriteShard(int64_t shard) {
    const std::string path = ShardPath(options_.folder, shard);
    const int64_t first = shard * cache_.pictures_per_shard;
    const int64_t end =
        std::min(first + cache_.pictures_per_shard, cache_.pictures);
    RETURN_IF_ERROR(WritePieceOnce(options_.folder, shard, path,
                                   [&] { return Write(path, first, end); }));
    done_ += end - first;
    if (progress_) progress_(done_);
    return absl::OkStatus();
  }

  absl::Status Write(const std::string& path, int64_t first, int64_t end) {
    ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
    TarWriter tar;
    for (int64_t i = first; i < end; ++i) {
      const absl::StatusOr<EncodedSample> encoded = Encode(i);
      // Memory may be there next time; a picture stays as it is.
      RETURN_IF_ERROR(device_.status());
      if (!encoded.ok()) {
        first_error_.Update(encoded.status());
        LOG(WARNING) << "skipping an unreadable sample: "
                     << MessageOf(encoded.status());
        continue;
      }
      AddMembers(fmt::format("{:09}", i), *encoded, tar);
      RETURN_IF_ERROR(file.Append(tar.Take()));
      if (progress_) progress_(done_ + i - first + 1);
    }
    RETURN_IF_ERROR(file.Append(tar.Finish()));
    return file.Commit();
  }

  absl::StatusOr<EncodedSample> Encode(int64_t index) const {
    ASSIGN_OR_RETURN(const Sample sample, pictures_.Read(index));
    ASSIGN_OR_RETURN(EncodedSample encoded, EncodeConditions(sample));
    const auto side = static_cast<int>(options_.side);
    const auto channels =
        static_cast<int>(autoencoder_->config().picture_channels);
    if (!IsValid(sample.image)) {
      return InvalidArgument("{}: no picture", sample.key);
    }
    const Image picture =
        WithChannels(ResizeAndCrop(sample.image, side, side), channels);
    std::vector<float> pixels(picture.pixels.size());
    ToFloat(picture, pixels);
    const Autoencoder::Posterior posterior = autoencoder_->Encode(
        Upload<float>(device_, {1, channels, side, side}, pixels));
    RETURN_IF_ERROR(device_.status());
    encoded.latents =
        SerializeLatents(cache_.format, posterior.mean, posterior.log_variance);
    return encoded;
  }

  const Dataset& pictures_;
  const LatentCacheOptions& options_;
  Device& device_;
  const std::function<void(int64_t)>& progress_;
  std::unique_ptr<Autoencoder> autoencoder_;
  LatentCache cache_;
  absl::Status first_error_;
  int64_t done_ = 0;
};

}  // namespace

absl::StatusOr<LatentCache> ReadLatentCache(const std::string& folder) {
  ASSIGN_OR_RETURN(LatentCache cache, ReadDescription(folder));
  int64_t missing = 0;
  for (int64_t shard = 0; shard < cache.shards(); ++shard) {
    missing += !Exists(ShardPath(folder, shard));
  }
  if (missing == 0) return cache;
  return FailedPrecondition(
      "{}: found {} of {} shards, expected all: the command that wrote them "
      "(trireme data --latents) goes on where it stopped",
      folder, cache.shards() - missing, cache.shards());
}

absl::StatusOr<LatentCacheSummary> WriteLatentCache(
    const Dataset& pictures, const LatentCacheOptions& options, Device& device,
    const std::function<void(int64_t)>& progress) {
  Writer writer(pictures, options, device, progress);
  RETURN_IF_ERROR(writer.Open());
  RETURN_IF_ERROR(writer.WriteShards());
  return writer.Finish();
}

}  // namespace trireme
