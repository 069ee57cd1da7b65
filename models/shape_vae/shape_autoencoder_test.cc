// The memory that an autoencoder of shapes takes without its weights.

#include "models/shape_vae/shape_autoencoder.h"

#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "models/shape_vae/shape_vae_config.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

// Of encoding a shape and of decoding its latents.
int64_t PeakOf(int64_t layers) {
  ShapeVae vae;
  vae.set_preset(ShapeVae::TINY);
  vae.set_encoder_layers(layers);
  vae.set_decoder_layers(layers);
  const auto config = ResolveShapeVae(vae);
  CHECK_OK(config.status());
  CpuDevice dry(int64_t{1} << 40, CpuDevice::Mode::kDry);
  const auto autoencoder = ShapeAutoencoder::WithoutValues(*config, dry);
  const int64_t weights = dry.Statistics().current_bytes;
  CHECK_OK(
      autoencoder->Encode(std::vector<float>(6 * config->points)).status());
  CHECK_OK(autoencoder
               ->Decode(std::vector<float>(config->latents * config->channels))
               .status());
  return dry.Statistics().peak_bytes - weights;
}

// A deep one would else need many times the memory of a block beside the model
// that draws for it.
TEST(ShapeAutoencoderTest, KeepsNothingOfTheBlocksBefore) {
  EXPECT_EQ(PeakOf(8), PeakOf(2));
}

}  // namespace
}  // namespace trireme
