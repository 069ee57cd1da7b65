// A folder of latents: shards (docs/formats/shards.md) of what an autoencoder
// makes of samples, with latents.json, which says of which, and of what
// samples.

#ifndef TRIREME_MODELS_AUTOENCODER_LATENT_CACHE_H_
#define TRIREME_MODELS_AUTOENCODER_LATENT_CACHE_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/autoencoder/latent_encoder.h"
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
  // Whether each sample of sets has its picture, if it had one; folders of
  // earlier versions are without.
  bool with_pictures = false;
  // LatentEncoder::skips_smaller.
  bool skips_smaller = false;
  // What was to be encoded, and in how many shards it lies.
  int64_t samples = 0;
  uint64_t samples_hash = 0;  // Dataset::IndexHash
  int64_t samples_per_shard = 0;

  int64_t shards() const {
    return (samples + samples_per_shard - 1) / samples_per_shard;
  }
};

// Errors name the file and the field; shards that are not there yet.
absl::StatusOr<LatentCache> ReadLatentCache(const std::string& folder);

struct LatentCacheOptions {
  std::string folder;
  // 0: as many as make some 64 MiB.
  int64_t samples_per_shard = 0;
};

struct LatentCacheSummary {
  int64_t samples = 0;
  int64_t skipped = 0;
  int64_t shards = 0;
  // Shards that other processes are writing.
  int64_t elsewhere = 0;
};

// Encodes the samples one at a time; what conditions models have of them is
// kept. Any number of processes, on whichever hosts, may
// fill one folder at once: each takes shards that are not there and that no
// other has taken. A shard is whole or not there, so that a stopped run goes on
// from what it has.
//
// Samples that cannot be read or encoded are skipped, counted and named in the
// log. Errors: a folder of other samples, weights or options (it names what
// differs), no sample left, files that cannot be written, out of memory.
// `progress` is told how many are done. `device`: the
// encoder's.
absl::StatusOr<LatentCacheSummary> WriteLatentCache(
    const Dataset& samples, const LatentEncoder& encoder,
    const LatentCacheOptions& options, Device& device,
    const std::function<void(int64_t)>& progress = {});

}  // namespace trireme

#endif  // TRIREME_MODELS_AUTOENCODER_LATENT_CACHE_H_
