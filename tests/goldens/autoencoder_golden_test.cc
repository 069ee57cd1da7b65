// Tiny autoencoders against diffusers' AutoencoderKL, from
// autoencoder.safetensors (see generate_autoencoder.py), read as a folder.

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/autoencoder/autoencoder.h"
#include "nlohmann/json.hpp"
#include "runtime/core/file.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "tests/goldens/golden_file_testing.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

constexpr char kFile[] = "tests/goldens/autoencoder.safetensors";

Json ConfigOf(const std::string& variant) {
  Json config = {{"_class_name", "AutoencoderKL"},
                 {"norm_num_groups", 2},
                 {"scaling_factor", 0.25},
                 {"shift_factor", 0.5}};
  if (variant == "sd") {
    config["block_out_channels"] = {4, 6};
    config["latent_channels"] = 2;
    config["layers_per_block"] = 2;
  } else {
    config["block_out_channels"] = {2, 4, 4};
    config["latent_channels"] = 3;
    config["use_quant_conv"] = config["use_post_quant_conv"] = false;
  }
  const size_t levels = config["block_out_channels"].size();
  config["down_block_types"] = Json(levels, "DownEncoderBlock2D");
  config["up_block_types"] = Json(levels, "UpDecoderBlock2D");
  return config;
}

class AutoencoderGolden : public testing::TestWithParam<std::string> {
 protected:
  AutoencoderGolden()
      : folder_(std::string(std::getenv("TEST_TMPDIR")) + "/" + GetParam()) {
    std::filesystem::create_directories(folder_);
    WriteConfig(ConfigOf(GetParam()));
    WriteWeights(/*rename=*/[](const std::string& name) { return name; });
  }

  void WriteConfig(const Json& config) {
    CHECK_OK(WriteFileAtomically(folder_ + "/config.json", config.dump()));
  }

  template <typename Rename>
  void WriteWeights(Rename&& rename) {
    const auto file = SafetensorsFile::Open(kFile);
    CHECK_OK(file.status());
    const std::string prefix = GetParam() + ".weights.";
    std::vector<SafetensorsEntry> entries;
    std::map<std::string, std::string> sources;
    for (const auto& [name, entry] : (*file)->tensors()) {
      if (!name.starts_with(prefix)) continue;
      const std::string stored = rename(name.substr(prefix.size()));
      sources[stored] = name;
      entries.push_back({stored, entry.dtype, entry.shape});
    }
    const auto writer = SafetensorsWriter::Create(
        folder_ + "/diffusion_pytorch_model.safetensors", entries, {});
    CHECK_OK(writer.status());
    for (const SafetensorsEntry& entry : (*writer)->entries()) {
      const auto data = (*file)->Data(sources.at(entry.name));
      CHECK_OK((*writer)->Append(entry.name, data->data(),
                                 static_cast<int64_t>(data->size())));
    }
    CHECK_OK((*writer)->Commit().status());
  }

  Tensor Golden(const std::string& name) const {
    return file_.Golden(GetParam() + "." + name);
  }

  void ExpectGoldens() {
    const auto autoencoder =
        Autoencoder::Open(folder_, device_, {.dtype = DType::kFloat64});
    ASSERT_TRUE(autoencoder.ok()) << autoencoder.status();
    const Autoencoder::Posterior posterior =
        (*autoencoder)->Encode(Golden("pictures"));
    EXPECT_EQ(posterior.shape, Golden("mean").shape());
    ExpectNear(posterior.mean, Doubles(Golden("mean")), "mean");
    ExpectNear(posterior.log_variance, Doubles(Golden("log_variance")),
               "log_variance");
    const Tensor decoded = (*autoencoder)->Decode(Golden("latents"));
    EXPECT_EQ(decoded.shape(), Golden("decoded").shape());
    ExpectNear(Doubles(decoded), Doubles(Golden("decoded")), "decoded");
  }

  void ExpectRefused(const std::string& expected) {
    const auto autoencoder = Autoencoder::Open(folder_, device_);
    ASSERT_FALSE(autoencoder.ok());
    EXPECT_NE(autoencoder.status().message().find(expected), std::string::npos)
        << autoencoder.status();
  }

  std::string folder_;
  CpuDevice device_{int64_t{1} << 28};
  GoldenFile file_{kFile, device_};
};

// Latents that another program's autoencoder does not know are noise to it.
TEST_P(AutoencoderGolden, ComputesWhatDiffusersDoes) { ExpectGoldens(); }

// Published files of Stable Diffusion 1 and 2 are older than the names.
TEST_P(AutoencoderGolden, KnowsTheOlderNamesOfAttention) {
  WriteWeights([](std::string name) {
    for (const auto& [now, then] :
         {std::pair("to_q", "query"), std::pair("to_k", "key"),
          std::pair("to_v", "value"), std::pair("to_out.0", "proj_attn")}) {
      const size_t at = name.find(now);
      if (at != std::string::npos) {
        name.replace(at, std::string(now).size(), then);
      }
    }
    return name;
  });
  ExpectGoldens();
}

TEST_P(AutoencoderGolden, NamesWhatDoesNotFit) {
  WriteWeights([](const std::string& name) {
    return name == "decoder.conv_in.bias" ? "decoder.conv_in.bios" : name;
  });
  ExpectRefused("found no tensor 'decoder.conv_in.bias' of shape");
  WriteWeights([](const std::string& name) { return name; });

  Json config = ConfigOf(GetParam());
  config["latent_channels"] = 5;
  WriteConfig(config);
  ExpectRefused("expected numbers of shape");
  config = ConfigOf(GetParam());
  config["_class_name"] = "AutoencoderTiny";
  WriteConfig(config);
  ExpectRefused(
      "config.json: _class_name: found \"AutoencoderTiny\", expected "
      "\"AutoencoderKL\"");
  config = ConfigOf(GetParam());
  config["down_block_types"][0] = "AttnDownEncoderBlock2D";
  WriteConfig(config);
  ExpectRefused("down_block_types: found [\"AttnDownEncoderBlock2D\"");
  config = ConfigOf(GetParam());
  config["latents_mean"] = {0.5, 0.5};
  WriteConfig(config);
  ExpectRefused("latents_mean: found [0.5,0.5], expected null");
  config = ConfigOf(GetParam());
  config["scale_factor"] = 1;
  WriteConfig(config);
  ExpectRefused("found field 'scale_factor', which no AutoencoderKL has");
}

// What drawing takes is known before it.
TEST_P(AutoencoderGolden, TakesTheSameMemoryOnADryDevice) {
  CpuDevice real(int64_t{1} << 28);
  const AutoencoderOptions decoder = {.encoder = false};
  const auto opened = Autoencoder::Open(folder_, real, decoder);
  ASSERT_TRUE(opened.ok()) << opened.status();
  const Tensor latents = Cast(Golden("latents"), DType::kFloat32);
  const auto on = [&](Device& device) {
    return Tensor::Empty(device, latents.shape(), DType::kFloat32);
  };
  (*opened)->Decode(on(real));
  CpuDevice dry(int64_t{1} << 28, CpuDevice::Mode::kDry);
  Autoencoder::WithoutValues((*opened)->config(), dry, decoder)
      ->Decode(on(dry));
  EXPECT_EQ(dry.Statistics().peak_bytes, real.Statistics().peak_bytes);
}

INSTANTIATE_TEST_SUITE_P(Variants, AutoencoderGolden,
                         testing::Values("sd", "flux"),
                         [](const testing::TestParamInfo<std::string>& info) {
                           return info.param;
                         });

}  // namespace
}  // namespace trireme
