#include "models/autoencoder/latent_cache.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "fmt/format.h"
#include "models/data/shard_writer.h"
#include "models/data/webdataset.h"
#include "models/weights/folder_tensors.h"
#include "nlohmann/json.hpp"
#include "runtime/core/file.h"
#include "runtime/core/log.h"
#include "runtime/core/shared_folder.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr int64_t kUsualShardBytes = int64_t{64} << 20;
constexpr int64_t kMostSide = 1 << 14;
constexpr size_t kMostSizes = 256;
constexpr int64_t kMostSamples = int64_t{1} << 40;

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
  Json json = {{"autoencoder", cache.autoencoder},
               {"weights_xxh64", cache.weights_checksum},
               {"channels", cache.format.channels},
               {"height", cache.format.height},
               {"width", cache.format.width},
               {"scaling_factor", cache.format.scale},
               {"shift_factor", cache.format.shift},
               {"pictures", cache.samples},
               {"pictures_hash", cache.samples_hash},
               {"pictures_per_shard", cache.samples_per_shard}};
  // The name of a field is that of the first kind of samples there was.
  if (cache.format.of_sets) json["sets"] = true;
  if (cache.with_pictures) json["with_pictures"] = true;
  if (cache.skips_smaller) json["skips_smaller"] = true;
  if (cache.format.views > 1) json["views"] = cache.format.views;
  if (cache.format.extra_channels > 0) {
    json["extra_channels"] = cache.format.extra_channels;
  }
  if (cache.format.lattice > 0) json["lattice"] = cache.format.lattice;
  for (const PictureSize& size : cache.format.sizes) {
    json["sizes"].push_back({size.height, size.width});
  }
  return json;
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
  // False where it is not there.
  bool Flag(const char* name) {
    const Json value = json_.value(name, Json(false));
    Expect(name, value, value.is_boolean(), "true or false");
    return status_.ok() && value.get<bool>();
  }
  // 0 where it is not there.
  int64_t WholeIfAny(const char* name, int64_t most) {
    return json_.contains(name) ? Whole(name, most) : 0;
  }
  int64_t Whole(const char* name, int64_t most) {
    const Json value = Get(name);
    Expect(name, value,
           value.is_number_unsigned() && value.get<uint64_t>() >= 1 &&
               value.get<uint64_t>() <= static_cast<uint64_t>(most),
           fmt::format("1 to {}", most));
    return status_.ok() ? value.get<int64_t>() : 1;
  }
  int64_t WholeOr(const char* name, int64_t otherwise, int64_t most) {
    return json_.contains(name) ? Whole(name, most) : otherwise;
  }
  // None where it is not there.
  std::vector<PictureSize> Sizes(const char* name) {
    const Json value = json_.value(name, Json::array());
    const auto is_side = [](const Json& side) {
      return side.is_number_unsigned() && side.get<uint64_t>() >= 1 &&
             side.get<uint64_t>() <= static_cast<uint64_t>(kMostSide);
    };
    bool good = value.is_array() && value.size() <= kMostSizes;
    std::vector<PictureSize> sizes;
    for (size_t i = 0; good && i < value.size(); ++i) {
      const Json& size = value[i];
      good = size.is_array() && size.size() == 2 && is_side(size[0]) &&
             is_side(size[1]);
      if (!good) break;
      sizes.push_back({size[0].get<int64_t>(), size[1].get<int64_t>()});
    }
    Expect(name, value, good,
           fmt::format("at most {} pairs of height and width", kMostSizes));
    return status_.ok() ? sizes : std::vector<PictureSize>();
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
  const absl::StatusOr<Json> read = ReadJsonObject(path);
  if (absl::IsNotFound(read.status())) {
    return NotFound(
        "found no {}, expected latents, as `trireme data --latents` writes "
        "them",
        path);
  }
  RETURN_IF_ERROR(read.status());
  const Json& json = *read;
  Description description(path, json);
  LatentCache cache;
  cache.autoencoder = description.Text("autoencoder");
  cache.weights_checksum = description.Text("weights_xxh64");
  cache.format.channels = description.Whole("channels", kMostSide);
  cache.format.height = description.Whole("height", kMostSide);
  cache.format.width = description.Whole("width", kMostSide);
  cache.format.scale = description.Number("scaling_factor");
  cache.format.shift = description.Number("shift_factor");
  cache.samples = description.Whole("pictures", kMostSamples);
  cache.samples_hash = description.Hash("pictures_hash");
  cache.samples_per_shard =
      description.Whole("pictures_per_shard", kMostSamples);
  cache.format.of_sets = description.Flag("sets");
  cache.with_pictures = description.Flag("with_pictures");
  cache.skips_smaller = description.Flag("skips_smaller");
  cache.format.lattice = description.WholeIfAny("lattice", kMostSide);
  cache.format.sizes = description.Sizes("sizes");
  cache.format.views = description.WholeOr("views", 1, kMostSide);
  cache.format.extra_channels =
      description.WholeOr("extra_channels", 0, kMostSide);
  RETURN_IF_ERROR(description.status());
  const LatentFormat& format = cache.format;
  if (format.height % format.views != 0) {
    return FailedPrecondition(
        "{}: views: found {}, expected a divisor of the height, {}", path,
        format.views, format.height);
  }
  if (format.extra_channels >= format.channels) {
    return FailedPrecondition(
        "{}: extra_channels: found {}, expected less than the {} channels",
        path, format.extra_channels, format.channels);
  }
  return cache;
}

class Writer {
 public:
  Writer(const Dataset& samples, const LatentEncoder& encoder,
         const LatentCacheOptions& options, Device& device,
         const std::function<void(int64_t)>& progress)
      : samples_(samples),
        encoder_(encoder),
        options_(options),
        device_(device),
        progress_(progress) {}

  absl::Status Open() {
    cache_.autoencoder = encoder_.autoencoder;
    cache_.weights_checksum = encoder_.weights_checksum;
    cache_.format = encoder_.format;
    cache_.with_pictures = encoder_.format.of_sets;
    cache_.skips_smaller = encoder_.skips_smaller;
    cache_.samples = samples_.size();
    cache_.samples_hash = samples_.IndexHash();
    const int64_t each =
        8 * cache_.format.channels * cache_.format.height * cache_.format.width;
    cache_.samples_per_shard =
        options_.samples_per_shard > 0
            ? options_.samples_per_shard
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
    RETURN_IF_ERROR(WriteClassNames(options_.folder, ClassNamesIn(samples_)));
    const auto written =
        OpenWebDataset({.paths = {options_.folder}, .latents = cache_.format});
    if (absl::IsNotFound(written.status())) {
      return NotFound("none of the {} samples can be encoded; the first: {}",
                      cache_.samples, MessageOf(first_error_));
    }
    RETURN_IF_ERROR(written.status());
    summary.samples = (*written)->size();
    summary.skipped = cache_.samples - summary.samples;
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
    Json fields = ours;
    fields.update(there);
    for (const auto& [field, value] : fields.items()) {
      // The same weights may lie elsewhere by now.
      if (field == "autoencoder" ||
          there.value(field, Json()) == ours.value(field, Json())) {
        continue;
      }
      const auto text = [&field](const Json& json) {
        return json.contains(field) ? json[field].dump() : "none";
      };
      return FailedPrecondition(
          "{}: {}: found {}, expected {}: the latents are of other pictures, "
          "weights or options; give these a folder of their own",
          DescriptionPath(options_.folder), field, text(there), text(ours));
    }
    return absl::OkStatus();
  }

  absl::Status WriteShard(int64_t shard) {
    const std::string path = ShardPath(options_.folder, shard);
    const int64_t first = shard * cache_.samples_per_shard;
    const int64_t end =
        std::min(first + cache_.samples_per_shard, cache_.samples);
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
      // Memory may be there next time; a sample stays as it is.
      RETURN_IF_ERROR(device_.status());
      if (!encoded.ok()) {
        first_error_.Update(encoded.status());
        LOG(WARNING) << "skipping a sample: " << MessageOf(encoded.status());
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
    ASSIGN_OR_RETURN(const Sample sample, samples_.Read(index));
    const bool has_picture =
        cache_.with_pictures && !sample.image.pixels.empty();
    ASSIGN_OR_RETURN(EncodedSample encoded, has_picture
                                                ? EncodeSample(sample)
                                                : EncodeConditions(sample));
    ASSIGN_OR_RETURN(const LatentPosterior posterior, encoder_.encode(sample));
    encoded.latents =
        SerializeLatents(cache_.format, posterior.size, posterior.mean,
                         posterior.log_variance, posterior.voxels);
    return encoded;
  }

  const Dataset& samples_;
  const LatentEncoder& encoder_;
  const LatentCacheOptions& options_;
  Device& device_;
  const std::function<void(int64_t)>& progress_;
  LatentCache cache_;
  absl::Status first_error_;
  int64_t done_ = 0;
};

}  // namespace

absl::StatusOr<LatentCache> ReadLatentCache(const std::string& folder) {
  ASSIGN_OR_RETURN(LatentCache cache, ReadDescription(folder));
  // Those that are there are counted: the description may say any number.
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(folder));
  int64_t found = 0;
  for (const std::string& name : names) {
    absl::string_view digits = name;
    int64_t shard = -1;
    if (!absl::ConsumePrefix(&digits, "shard-") ||
        !absl::ConsumeSuffix(&digits, ".tar") ||
        !absl::SimpleAtoi(digits, &shard) || shard < 0 ||
        shard >= cache.shards()) {
      continue;
    }
    found += ShardPath(folder, shard) == folder + "/" + name;
  }
  if (found == cache.shards()) return cache;
  return FailedPrecondition(
      "{}: found {} of {} shards, expected all: the command that wrote them "
      "(trireme data --latents) goes on where it stopped",
      folder, found, cache.shards());
}

absl::StatusOr<LatentCacheSummary> WriteLatentCache(
    const Dataset& samples, const LatentEncoder& encoder,
    const LatentCacheOptions& options, Device& device,
    const std::function<void(int64_t)>& progress) {
  Writer writer(samples, encoder, options, device, progress);
  RETURN_IF_ERROR(writer.Open());
  RETURN_IF_ERROR(writer.WriteShards());
  return writer.Finish();
}

}  // namespace trireme
