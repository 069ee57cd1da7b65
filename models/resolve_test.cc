// What jobs are told of the table of families.

#include "models/resolve.h"

#include <filesystem>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/data_format.h"
#include "models/model.pb.h"
#include "runtime/core/file.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

TEST(ResolveModelTest, AModelOfNoFamilyIsToldOfAll) {
  Model model;
  const auto resolved = ResolveModel(model, {});
  ASSERT_FALSE(resolved.ok());
  EXPECT_EQ(MessageOf(resolved.status()),
            "model: found no family, expected dit, mmdit, hidream, triposg, "
            "shape_vae, mesh_tokens, swin, sparse_dit or sparse_vae");
}

// Whoever resolves a job before its data are there asks for them.
TEST(ResolveModelTest, AModelThatNamesClassesNeedsAsManyAsItSays) {
  Model model;
  EXPECT_EQ(LeastClasses(model), 0);
  model.mutable_dit()->set_preset(Dit::S);
  EXPECT_EQ(LeastClasses(model), 0);
  model.mutable_swin()->set_preset(Swin::MOE_B);
  DataFormat data = {.channels = 3, .resolution = 192};
  EXPECT_FALSE(ResolveModel(model, data).ok());
  data.classes = LeastClasses(model);
  const auto resolved = ResolveModel(model, data);
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_TRUE((*resolved)->classifies());
}

// transformers writes no names of two classes that have none: the run that is
// made of such a folder has them nevertheless.
TEST(ResolveModelTest, AFolderWithoutNamesOfClassesHasTheLibrarys) {
  const std::string folder = testing::TempDir() + "/unnamed_classes";
  std::filesystem::create_directories(folder);
  const auto model_of = [&](const std::string& labels) {
    const std::string path = folder + "/config.json";
    std::filesystem::remove(path);
    CHECK_OK(WriteFileAtomically(
        path, R"({"architectures": ["Swinv2ForImageClassification"],
                  "model_type": "swinv2", "image_size": 16, "patch_size": 1,
                  "embed_dim": 8, "depths": [1], "num_heads": [2],
                  "window_size": 4)" +
                  labels + "}"));
    return ModelOfFolder(folder);
  };
  const auto unnamed = model_of("");
  ASSERT_TRUE(unnamed.ok()) << MessageOf(unnamed.status());
  EXPECT_EQ(unnamed->data.classes, 2);
  EXPECT_EQ(unnamed->class_names,
            (std::vector<std::string>{"LABEL_0", "LABEL_1"}));
  const auto named = model_of(R"(, "id2label": {"0": "cat"})");
  ASSERT_TRUE(named.ok()) << MessageOf(named.status());
  EXPECT_EQ(named->class_names, std::vector<std::string>{"cat"});
  // None is made of a number that no model has.
  EXPECT_NE(MessageOf(model_of(R"(, "num_labels": 2147483647)").status())
                .find("model.swin: classes of the data: found 2147483647"),
            std::string::npos);
}

}  // namespace
}  // namespace trireme
