// People bring folders of other programs, and damaged ones; what is written
// here must be what others, and this program, read.

#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/weights/write_weight_folder.h"
#include "nlohmann/json.hpp"
#include "runtime/core/file.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;

constexpr char kConfig[] = R"({"width": 4})";

// q, k and v apart, a convolution, scale before shift.
NameTable Table(const std::string& config = kConfig,
                WeightLibrary library = WeightLibrary::kDiffusers) {
  NameTable table("TinyTransformer", config, config, library);
  const std::vector<NamedShape> qkv = {{"attn.to_q.weight", {4, 4}},
                                       {"attn.to_k.weight", {4, 4}},
                                       {"attn.to_v.weight", {4, 4}}};
  table.AddSplit({"qkv.weight", {3, 4, 4}}, qkv);
  table.AddPermuted({"patches.weight", {4, 12}}, {4, 2, 2, 3}, {0, 3, 1, 2},
                    {"proj.weight", {4, 3, 2, 2}});
  const int parts[] = {1, 0};
  table.AddReordered({"modulation.bias", {2, 4}}, parts,
                     {"norm_out.linear.bias", {8}});
  table.AddConstant({.tensor = {"pos_embed", {2, 3}},
                     .element = [](int64_t i) { return i / 6.0; }});
  table.CheckComplete();
  return table;
}

// Element i of each parameter is i + 0.5.
class Counting final : public TensorSource {
 public:
  absl::Status Check(const std::string&, const Shape&) const override {
    return absl::OkStatus();
  }
  void Read(const std::string&, int64_t begin,
            std::span<double> values) const override {
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<double>(begin) + static_cast<double>(i) + 0.5;
    }
  }
};

class WeightFolderTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "/" +
              testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
  }
  void Write(const WeightFolderOptions& options = {}) {
    const absl::Status written = WriteWeightFolder(
        folder_, Table(), std::make_shared<Counting>(), options);
    ASSERT_TRUE(written.ok()) << MessageOf(written);
  }
  std::string ErrorOf(const NameTable& table) {
    const auto source = OpenWeightFolder(folder_, table);
    return source.ok() ? "" : MessageOf(source.status());
  }

  std::string folder_;
};

void ExpectCounting(const TensorSource& source) {
  const NameTable table = Table();
  for (const NamedShape& parameter : table.parameters()) {
    ASSERT_TRUE(source.Check(parameter.name, parameter.shape).ok());
    // From the middle, as a rank with a shard reads.
    const int64_t size = parameter.shape.num_elements();
    for (const int64_t begin : {int64_t{0}, size / 2 - 1}) {
      std::vector<double> values(size - begin);
      source.Read(parameter.name, begin, values);
      for (int64_t i = begin; i < size; ++i) {
        ASSERT_EQ(values[i - begin], static_cast<double>(i) + 0.5)
            << parameter.name << " " << i;
      }
    }
  }
}

// A damaged model computes NaN: whoever converts it hears of it, not the one
// who samples. So does who writes F16 of what F16 does not have.
TEST_F(WeightFolderTest, WhatIsNoNumberIsSaid) {
  class Damaged final : public TensorSource {
   public:
    explicit Damaged(double value) : value_(value) {}
    absl::Status Check(const std::string&, const Shape&) const override {
      return absl::OkStatus();
    }
    void Read(const std::string& name, int64_t begin,
              std::span<double> values) const override {
      Counting().Read(name, begin, values);
      if (name != "patches.weight") values[values.size() / 2] = value_;
    }

   private:
    double value_;
  };
  const auto said = [&](double value, DType dtype) {
    fs::remove_all(folder_);
    testing::internal::CaptureStderr();
    EXPECT_TRUE(WriteWeightFolder(folder_, Table(),
                                  std::make_shared<Damaged>(value),
                                  {.dtype = dtype})
                    .ok());
    return testing::internal::GetCapturedStderr();
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const DType dtype :
       {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    EXPECT_NE(said(nan, dtype)
                  .find(folder_ + ": 4 tensors have elements that "
                                  "are NaN or infinite, the first: "
                                  "attn.to_"),
              std::string::npos);
    EXPECT_EQ(said(7, dtype), "");
  }
  EXPECT_EQ(said(70000, DType::kFloat32), "");
  EXPECT_EQ(said(70000, DType::kBFloat16), "");
  EXPECT_NE(said(70000, DType::kFloat16).find("the first: attn.to_"),
            std::string::npos);
}

TEST_F(WeightFolderTest, WhatIsWrittenIsRead) {
  for (const DType dtype :
       {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    fs::remove_all(folder_);
    Write({.dtype = dtype});
    auto source = OpenWeightFolder(folder_, Table());
    ASSERT_TRUE(source.ok()) << MessageOf(source.status());
    ExpectCounting(*source->parameters);
  }
}

// People copy the large files of a pipeline, and not the small one.
TEST_F(WeightFolderTest, APipelineWithoutItsIndexIsToldOfItsModel) {
  Write();
  fs::remove(folder_ + "/model_index.json");
  EXPECT_FALSE(IsWeightFolder(folder_));
  EXPECT_EQ(WeightsWithin(folder_), "; " + folder_ + "/transformer is one");
  EXPECT_TRUE(OpenWeightFolder(folder_ + "/transformer", Table()).ok());
  EXPECT_EQ(WeightsWithin(folder_ + "/transformer"), "");
}

TEST_F(WeightFolderTest, PartsOfARankAreItsOwn) {
  Write();
  auto source = OpenWeightFolder(folder_, Table());
  ASSERT_TRUE(source.ok()) << MessageOf(source.status());
  CpuDevice device(1 << 20);
  // The second half of each of q, k and v.
  const TensorPart part{
      .name = "qkv.weight",
      .global_shape = {3, 4, 4},
      .shards = {{Axis::kTensor, 1, 2, 1}},
      .local = Tensor::Zeros(device, {3, 2, 4}, DType::kBFloat16),
      .end = 24};
  ASSERT_TRUE(ReadParts(*source->parameters, {&part, 1}).ok());
  const std::vector<BFloat16> local = part.local.ToVector<BFloat16>();
  for (int i = 0; i < 24; ++i) {
    EXPECT_EQ(static_cast<float>(local[i]),
              static_cast<float>(i / 8 * 16 + 8 + i % 8) + 0.5F);
  }
}

TEST_F(WeightFolderTest, ShardsHaveAnIndexAndAreTheSameWhenWrittenAgain) {
  const WeightFolderOptions options{.max_shard_bytes = 150};
  Write(options);
  const std::string transformer = folder_ + "/transformer/";
  ASSERT_TRUE(fs::exists(transformer +
                         "diffusion_pytorch_model.safetensors.index.json"));
  auto source = OpenWeightFolder(folder_, Table());
  ASSERT_TRUE(source.ok()) << MessageOf(source.status());
  ExpectCounting(*source->parameters);
  const std::string again = folder_ + "_again";
  fs::remove_all(again);
  // As the first has them, without being told their size.
  ASSERT_TRUE(
      WriteWeightFolder(again, Table(), std::move(source->parameters),
                        {.like = source->tensors, .constants = source->files})
          .ok());
  int files = 0;
  for (const auto& entry : fs::directory_iterator(transformer)) {
    const std::string copy =
        again + "/transformer/" + entry.path().filename().string();
    EXPECT_EQ(*ReadFile(entry.path().string(), 1 << 20),
              *ReadFile(copy, 1 << 20));
    ++files;
  }
  EXPECT_EQ(files, 6);
  // A shard gone astray is named.
  fs::remove(transformer +
             "diffusion_pytorch_model-00002-of-00004.safetensors");
  EXPECT_NE(ErrorOf(Table()).find("00002-of-00004"), std::string::npos);
}

// A published config.json leaves arguments out: its copy must not differ.
TEST_F(WeightFolderTest, ACopyHasTheConfigurationAsItWas) {
  const nlohmann::json config = {{"_class_name", "TinyTransformer"},
                                 {"_diffusers_version", "0.29.0.dev0"}};
  Write({.config = config.dump()});
  const auto read = ReadFolderConfig(folder_);
  ASSERT_TRUE(read.ok()) << MessageOf(read.status());
  EXPECT_EQ(read->text, config.dump());
  EXPECT_EQ(ErrorOf(Table()), "");
}

TEST_F(WeightFolderTest, OtherModelsAreRefusedByName) {
  Write();
  EXPECT_NE(ErrorOf(Table(R"({"width": 8})")).find("width: found 4, expected"),
            std::string::npos);
  NameTable other("OtherTransformer", "{}", "{}");
  EXPECT_NE(ErrorOf(other).find("expected \"OtherTransformer\""),
            std::string::npos);
  NameTable more = Table();
  more.Add({"extra", {2}}, {"extra.weight", {2}});
  EXPECT_NE(ErrorOf(more).find("no tensor 'extra.weight'"), std::string::npos);
  NameTable fewer("TinyTransformer", kConfig, kConfig);
  fewer.Add({"patches.weight", {4, 12}}, {"proj.weight", {4, 3, 2, 2}});
  EXPECT_NE(ErrorOf(fewer).find("which no TinyTransformer has"),
            std::string::npos);
  NameTable misshapen("TinyTransformer", kConfig, kConfig);
  misshapen.Add({"patches.weight", {4, 12}}, {"proj.weight", {4, 12}});
  EXPECT_NE(ErrorOf(misshapen).find("expected numbers of shape [4, 12]"),
            std::string::npos);
}

// As transformers' save_pretrained writes it, with what it notes.
TEST_F(WeightFolderTest, TransformersFoldersAreReadAndCopied) {
  const NameTable table =
      Table(R"({"width": 4, "num_labels": 11})", WeightLibrary::kTransformers);
  std::vector<std::string> names;
  for (int i = 0; i < 11; ++i) names.push_back("class " + std::to_string(i));
  ASSERT_TRUE(WriteWeightFolder(folder_, table, std::make_shared<Counting>(),
                                {.class_names = names})
                  .ok());
  EXPECT_TRUE(fs::exists(folder_ + "/model.safetensors"));
  EXPECT_FALSE(fs::exists(folder_ + "/model_index.json"));
  const auto config = ReadFolderConfig(folder_);
  ASSERT_TRUE(config.ok()) << MessageOf(config.status());
  EXPECT_EQ(config->class_name, "TinyTransformer");
  EXPECT_EQ(config->class_names, names);
  EXPECT_EQ(*config->arguments,
            nlohmann::json::parse(R"({"width": 4, "num_labels": 11})"));
  const auto written = nlohmann::json::parse(config->text);
  EXPECT_EQ(written["architectures"][0], "TinyTransformer");
  EXPECT_EQ(written["dtype"], "float32");
  EXPECT_EQ(written["id2label"]["10"], "class 10");
  EXPECT_EQ(written["label2id"]["class 10"], 10);
  EXPECT_FALSE(written.contains("num_labels"));
  auto source = OpenWeightFolder(folder_, table);
  ASSERT_TRUE(source.ok()) << MessageOf(source.status());
  ExpectCounting(*source->parameters);
  // The library's own order of classes is that of their numbers, and so a
  // copy's.
  const std::string theirs = R"({"architectures": ["TinyTransformer"],
    "dtype": "float32", "transformers_version": "5.24.0", "id2label": {)" +
                             [&] {
                               std::string labels;
                               for (int i = 0; i < 11; ++i) {
                                 labels += (i == 0 ? "\"" : ", \"") +
                                           std::to_string(i) + "\": \"" +
                                           names[i] + "\"";
                               }
                               return labels;
                             }() +
                             "}}";
  for (const std::optional<DType> dtype :
       {std::optional<DType>(), std::optional(DType::kBFloat16)}) {
    const std::string copy = folder_ + "_copy";
    fs::remove_all(copy);
    ASSERT_TRUE(WriteWeightFolder(
                    copy, table, std::make_shared<Counting>(),
                    {.dtype = dtype, .max_shard_bytes = 150, .config = theirs})
                    .ok());
    EXPECT_TRUE(fs::exists(copy + "/model.safetensors.index.json"));
    const auto copied = ReadFolderConfig(copy);
    ASSERT_TRUE(copied.ok()) << MessageOf(copied.status());
    if (!dtype.has_value()) {
      EXPECT_EQ(copied->text, theirs);
      EXPECT_TRUE(fs::exists(copy + "/model-00001-of-00004.safetensors"));
    }
    EXPECT_EQ(nlohmann::json::parse(copied->text)["dtype"],
              dtype.has_value() ? "bfloat16" : "float32");
    EXPECT_EQ(copied->class_names, names);
    const auto read = OpenWeightFolder(copy, table);
    ASSERT_TRUE(read.ok()) << MessageOf(read.status());
  }
}

// The library leaves out the names that it would make itself.
TEST_F(WeightFolderTest, ClassesWithoutNamesAreLeftOutAsTransformersDoes) {
  const auto config_with = [&](const std::vector<std::string>& names) {
    fs::remove_all(folder_);
    const NameTable table =
        Table(R"({"width": 4, "num_labels": 2})", WeightLibrary::kTransformers);
    EXPECT_TRUE(WriteWeightFolder(folder_, table, std::make_shared<Counting>(),
                                  {.class_names = names})
                    .ok());
    return ReadFolderConfig(folder_).value().text;
  };
  EXPECT_EQ(config_with({}).find("id2label"), std::string::npos);
  EXPECT_EQ(config_with({"LABEL_0", "LABEL_1"}).find("2label"),
            std::string::npos);
  EXPECT_NE(config_with({"LABEL_1", "LABEL_0"}).find("id2label"),
            std::string::npos);
}

TEST_F(WeightFolderTest, MistakesOfTransformersFoldersAreNamed) {
  const NameTable table = Table(kConfig, WeightLibrary::kTransformers);
  ASSERT_TRUE(
      WriteWeightFolder(folder_, table, std::make_shared<Counting>(), {}).ok());
  const auto error_of = [&](const std::string& text) {
    const std::string path = folder_ + "/config.json";
    fs::remove(path);
    EXPECT_TRUE(WriteFileAtomically(path, text).ok());
    return ErrorOf(table);
  };
  EXPECT_EQ(error_of(R"({"architectures": ["TinyTransformer"]})"), "");
  EXPECT_NE(error_of(R"({"architectures": ["Swinv2Model"]})")
                .find("architectures: found \"Swinv2Model\", expected "
                      "\"TinyTransformer\""),
            std::string::npos);
  EXPECT_NE(error_of(R"({"architectures": []})")
                .find("architectures: found [], expected a list of one class"),
            std::string::npos);
  EXPECT_NE(error_of(R"({"architectures": ["TinyTransformer"],
                         "id2label": {"0": "shoe", "2": "bag"}})")
                .find("id2label: found none of class 1, expected a name of "
                      "each of 2"),
            std::string::npos);
  EXPECT_NE(error_of(R"({"architectures": ["TinyTransformer"],
                         "id2label": ["shoe"]})")
                .find("id2label: found array, expected an object"),
            std::string::npos);
  EXPECT_NE(error_of(R"({"architectures": ["TinyTransformer"], "widht": 4})")
                .find("found field 'widht', which no TinyTransformer has "
                      "(nearest: 'width')"),
            std::string::npos);
}

TEST_F(WeightFolderTest, NothingIsOverwritten) {
  Write();
  const absl::Status again =
      WriteWeightFolder(folder_, Table(), std::make_shared<Counting>(), {});
  EXPECT_NE(MessageOf(again).find("expected a new folder"), std::string::npos);
}

// An index that lost a shard, and the other kinds of files that hubs offer.
TEST_F(WeightFolderTest, FilesThatNoIndexNamesAreNamedWhereTensorsAreMissed) {
  Write({.max_shard_bytes = 150});
  const std::string transformer = folder_ + "/transformer/";
  const std::string index =
      transformer + "diffusion_pytorch_model.safetensors.index.json";
  const std::string shard =
      "diffusion_pytorch_model-00002-of-00004.safetensors";
  auto json = nlohmann::json::parse(*ReadFile(index, 1 << 20));
  nlohmann::json others = nlohmann::json::object();
  for (const auto& [tensor, file] : json["weight_map"].items()) {
    if (file.get<std::string>() != shard) others[tensor] = file;
  }
  json["weight_map"] = others;
  fs::remove(index);
  ASSERT_TRUE(WriteFileAtomically(index, json.dump()).ok());
  const std::string lost = ErrorOf(Table());
  EXPECT_NE(lost.find("found no tensor '"), std::string::npos) << lost;
  EXPECT_NE(lost.find("; " + shard + " lies there, which no index names"),
            std::string::npos)
      << lost;
  fs::remove(index);
  const std::string none = ErrorOf(Table());
  EXPECT_NE(
      none.find("found neither diffusion_pytorch_model.safetensors nor "
                "diffusion_pytorch_model.safetensors.index.json, expected one "
                "of them; diffusion_pytorch_model-00001-of-00004.safetensors "
                "(of 4) lies there"),
      std::string::npos)
      << none;
}

TEST_F(WeightFolderTest, BrokenFilesAreErrors) {
  Write();
  const std::string config = folder_ + "/transformer/config.json";
  for (const char* text : {"", "[]", "{\"_class_name\": 3}", "{"}) {
    fs::remove(config);
    ASSERT_TRUE(WriteFileAtomically(config, text).ok());
    EXPECT_NE(ErrorOf(Table()), "") << text;
  }
}

}  // namespace
}  // namespace trireme
