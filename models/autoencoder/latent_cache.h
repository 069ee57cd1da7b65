// A folder of latents: shards (docs/formats/shards.md) of what an autoencoder
// makes of pictures, with latents.json, which says of which, and of what
// pictures.

#ifndef TRIREME_MODELS_AUTOENCODER_LATENT_CACHE_H_
#define TRIREME_MODELS_AUTOENCODER_LATENT_CACHE_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/autoencoder/autoencoder.h"
#include "models/data/dataset.h"
#include "models/data/latents.h"

namespace trireme {

// What latents.json says.
struct LatentCache {
  // The autoencoder's folder, absolute, and the checksum of its weights.
  std::string autoencoder;
  std::string weights_checksum;
  // Shape, scale and shift of the latents.
  LatentFormat format;
  // The pictures that were to be encoded, and in how many shards they lie.
  int64_t pictures = 0;
  uint64_t pictures_hash = 0;  // Dataset::IndexHash
  int64_t pictures_per_shard = 0;

  int64_t shards() const {
    return (pictures + pictures_per_shard - 1) / pictures_per_shard;
  }
};

// Errors name the file and the field; shards that are not there yet.
absl::StatusOr<LatentCache> ReadLatentCache(const std::string& folder);

struct LatentCacheOptions {
  std::string folder;
  // Of the autoencoder.
  std::string autoencoder;
  // Side of the square pictures that are encoded: a multiple of the
  // autoencoder's reduction.
  int64_t side = 0;
  // 0: as many as make some 64 MiB.
  int64_t pictures_per_shard = 0;
};

struct LatentCacheSummary {
  int64_t samples = 0;
  int64_t skipped = 0;
  int64_t shards = 0;
  // Shards that other processes are writing.
  int64_t elsewhere = 0;
};

// Encodes the pictures, scaled and cropped to the side, one at a time; what
// else samples have is kept. Any number of processes, on whichever hosts, may
// fill one folder at once: each takes shards that are not there and that no
// other has taken. A shard is whole or not there, so that a stopped run goes on
// from what it has.
//
// Pictures that cannot be read are skipped, counted and named in the log.
// Errors: a folder of other pictures, weights or options (it names what
// differs), no picture left, files that cannot be written, out of memory.
// `progress` is told how many pictures are done.
absl::StatusOr<LatentCacheSummary> WriteLatentCache(
    const Dataset& pictures, const LatentCacheOptions& options, Device& device,
    const std::function<void(int64_t)>& progress = {});

}  // namespace trireme

#endif  // TRIREME_MODELS_AUTOENCODER_LATENT_CACHE_H_
