// A set of latents: what latents.json says, a zero byte, and a shard.

#include <algorithm>
#include <cmath>

#include "models/autoencoder/latent_cache.h"
#include "models/data/webdataset.h"
#include "runtime/core/log.h"
#include "tests/fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace trireme;
  static const ScratchFolder folder;
  const std::string_view input = TextOf(data, size);
  const size_t zero = std::min(input.find('\0'), input.size());
  folder.Write("latents.json", input.substr(0, zero));
  folder.Write("shard-000000.tar",
               input.substr(std::min(zero + 1, input.size())));
  const auto cache = ReadLatentCache(folder.path());
  if (!cache.ok()) return 0;
  const auto dataset =
      OpenWebDataset({.paths = {folder.path()}, .latents = cache->format});
  if (!dataset.ok()) return 0;
  for (int64_t i = 0; i < (*dataset)->size(); ++i) {
    const auto sample = (*dataset)->Read(i);
    if (!sample.ok()) continue;
    const Sample::Latents& latents = sample->latents;
    const auto values = static_cast<size_t>(
        cache->format.channels * latents.size.height * latents.size.width);
    CHECK_EQ(latents.mean.size(), values);
    CHECK_EQ(latents.deviation.size(), values);
    for (const auto* part : {&latents.mean, &latents.deviation}) {
      CHECK(std::all_of(part->begin(), part->end(),
                        [](float value) { return std::isfinite(value); }));
    }
  }
  return 0;
}
