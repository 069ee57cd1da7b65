// Whoever evaluates a generator of shapes sees what it drew beside what it may
// have copied.

#include "trainer/sampling/shape_medium.h"

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "models/data/dataset.h"
#include "models/shape/point_samples.h"
#include "models/shape/shapes_testing.h"
#include "runtime/core/file.h"
#include "runtime/core/philox.h"

namespace trireme {
namespace {

// A sample of one number is a box so high.
Mesh BoxOf(float height) { return BoxMesh({0, 0, 0}, {0.5F, height, 0.5F}); }

struct RealBox {
  float height = 0;  // of its surface's points
  float shown = 0;   // of what its token becomes
};

class Boxes final : public Dataset {
 public:
  explicit Boxes(std::vector<RealBox> boxes) : boxes_(std::move(boxes)) {}
  int64_t size() const override { return static_cast<int64_t>(boxes_.size()); }
  int64_t num_classes() const override { return 1; }
  std::string class_name(int64_t) const override { return "box"; }
  absl::StatusOr<Sample> ReadParts(int64_t index,
                                   const SampleParts&) const override {
    Sample sample;
    sample.class_id = 0;
    sample.token_set = {boxes_[index].shown};
    for (const Vector3f& point :
         SampleSurface(BoxOf(boxes_[index].height), 512,
                       RandomStream({.sample = static_cast<uint64_t>(index)}))
             .points) {
      sample.surface_points.insert(sample.surface_points.end(),
                                   {point.x, point.y, point.z});
    }
    return sample;
  }

 private:
  std::vector<RealBox> boxes_;
};

class ShapeMediumTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "/" +
              testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }

  // Draws two boxes and returns the picture of what is nearest to them.
  std::string NearestPicture(std::vector<RealBox> training) {
    const Boxes real(std::move(training));
    const std::vector<float> drawn = {0.1F, 0.8F};
    const std::vector<Sample> prompts(drawn.size(), Sample{.class_id = 0});
    const auto text = medium_.Compare(prompts, drawn,
                                      {.training = real,
                                       .held_out = &real,
                                       .picture = folder_ + "/drawn.png"});
    EXPECT_TRUE(text.ok()) << text.status();
    const std::string path = folder_ + "/drawn_nearest.png";
    EXPECT_NE(text->find(path), std::string::npos) << *text;
    return *ReadFile(path, 1 << 20);
  }

  std::string folder_;
  const ShapeMedium medium_{
      {.name = "boxes", .shape = {1}},
      ShapeMedium::MeshOf(
          [](std::span<const float> sample, const Sample&,
             int) -> absl::StatusOr<Mesh> { return BoxOf(sample[0]); })};
};

TEST_F(ShapeMediumTest, TheNearestTrainingShapesAreShownAndNoOthers) {
  const std::string picture =
      NearestPicture({{0.11F, 0.11F}, {0.4F, 0.4F}, {0.79F, 0.79F}});
  // One that is nearest to none does not matter, one that is does.
  EXPECT_EQ(NearestPicture({{0.11F, 0.11F}, {0.4F, 0.2F}, {0.79F, 0.79F}}),
            picture);
  EXPECT_NE(NearestPicture({{0.11F, 0.11F}, {0.4F, 0.4F}, {0.79F, 0.2F}}),
            picture);
}

TEST_F(ShapeMediumTest, APictureOfSomebodyElsesIsNotReplaced) {
  ASSERT_TRUE(
      WriteFileAtomically(folder_ + "/drawn_nearest.png", "a photo").ok());
  EXPECT_FALSE(medium_.CheckFiles(folder_ + "/drawn.png", false).ok());
  EXPECT_TRUE(medium_.CheckFiles(folder_ + "/drawn.png", true).ok());
}

}  // namespace
}  // namespace trireme
