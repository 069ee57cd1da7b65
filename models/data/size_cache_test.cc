// Whoever starts a run again does not wait for every picture's header, and
// never trains on a size that a picture no longer has.

#include "models/data/size_cache.h"

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/data/held_out.h"
#include "models/data/image_folder.h"
#include "models/data/shard_writer.h"
#include "models/data/webdataset.h"
#include "models/image/encode.h"
#include "runtime/core/file.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxBytes = 1 << 20;

// Sample i is i + 1 high and 5 wide, but those from `readable` on; counts what
// is opened.
class CountedSizes final : public Dataset {
 public:
  explicit CountedSizes(int64_t readable = 100) : readable_(readable) {}
  int64_t size() const override { return 7; }
  int64_t num_classes() const override { return 0; }
  std::string class_name(int64_t) const override { return ""; }
  absl::StatusOr<Sample> ReadParts(int64_t, const SampleParts&) const override {
    return Sample();
  }
  absl::StatusOr<PictureSize> ReadSize(int64_t index) const override {
    ++opened_;
    if (index >= readable_) return DataLoss("{}: damaged", index);
    return PictureSize{index + 1, 5};
  }
  // Since the last call.
  int64_t opened() const { return opened_.exchange(0); }

 private:
  int64_t readable_;
  mutable std::atomic<int64_t> opened_ = 0;
};

class SizeCacheTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/sizesXXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    path_ = folder_ / kSizeCacheName;
  }
  void TearDown() override { fs::remove_all(folder_); }

  void Write(const std::string& name, int height, int width) {
    CHECK_OK(WritePng(folder_ / name, FilledImage(width, height, 3, 7)));
  }
  std::vector<PictureSize> SizesIn(const Dataset& dataset) {
    std::vector<PictureSize> sizes;
    for (const auto& size : dataset.ReadSizes()) {
      CHECK_OK(size.status());
      sizes.push_back(*size);
    }
    return sizes;
  }

  fs::path folder_;
  fs::path path_;
};

TEST_F(SizeCacheTest, SizesAreReadOnceForTheSameFiles) {
  const CountedSizes dataset;
  for (const int64_t expected : {7, 0, 0}) {
    const auto sizes = ReadSizesOnce(dataset, path_, 1);
    EXPECT_EQ(dataset.opened(), expected);
    ASSERT_EQ(sizes.size(), 7u);
    for (int64_t i = 0; i < 7; ++i) {
      EXPECT_EQ(sizes[i].value(), (PictureSize{i + 1, 5}));
    }
  }
  ReadSizesOnce(dataset, path_, 2);
  EXPECT_EQ(dataset.opened(), 7);
  ReadSizesOnce(dataset, path_, 1);
  EXPECT_EQ(dataset.opened(), 7);
}

TEST_F(SizeCacheTest, WhatCouldNotBeReadIsTriedAgain) {
  const CountedSizes damaged(5), mended;
  EXPECT_FALSE(ReadSizesOnce(damaged, path_, 1)[5].ok());
  EXPECT_EQ(damaged.opened(), 7);
  const auto again = ReadSizesOnce(damaged, path_, 1);
  EXPECT_EQ(damaged.opened(), 2);
  EXPECT_EQ(MessageOf(again[6].status()), "6: damaged");
  EXPECT_EQ(ReadSizesOnce(mended, path_, 1)[6].value(), (PictureSize{7, 5}));
}

// Any byte that is another one, and any length.
TEST_F(SizeCacheTest, ADamagedFileIsWrittenAnew) {
  const CountedSizes dataset;
  ReadSizesOnce(dataset, path_, 1);
  const std::string whole = ReadFile(path_, kMaxBytes).value();
  dataset.opened();
  for (size_t i = 0; i <= whole.size(); ++i) {
    std::string damaged = whole.substr(0, i);
    if (i % 2 == 1) {
      damaged = whole;
      damaged[i - 1] ^= 4;
    } else if (i == whole.size()) {
      damaged += 'x';
    }
    std::ofstream(path_, std::ios::binary) << damaged;
    EXPECT_EQ(ReadSizesOnce(dataset, path_, 1)[2].value(), (PictureSize{3, 5}));
    EXPECT_EQ(dataset.opened(), 7) << i;
    EXPECT_EQ(ReadFile(path_, kMaxBytes).value(), whole);
  }
}

TEST_F(SizeCacheTest, AFolderThatCannotBeWrittenIsReadAsEver) {
  const CountedSizes dataset;
  const fs::path nowhere = folder_ / "none" / kSizeCacheName;
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(ReadSizesOnce(dataset, nowhere, 1)[0].value(),
              (PictureSize{1, 5}));
    EXPECT_EQ(dataset.opened(), 7);
  }
}

TEST_F(SizeCacheTest, FoldersTellWhatChangedAndHideTheFile) {
  Write("a.png", 3, 4);
  Write("b.png", 5, 6);
  const auto sizes = [&] { return SizesIn(*OpenImageFolder(folder_).value()); };
  EXPECT_EQ(sizes(), (std::vector<PictureSize>{{3, 4}, {5, 6}}));
  ASSERT_TRUE(fs::exists(path_));
  const auto written = fs::last_write_time(path_);
  EXPECT_EQ(sizes(), (std::vector<PictureSize>{{3, 4}, {5, 6}}));
  EXPECT_EQ(fs::last_write_time(path_), written);
  Write("b.png", 50, 60);
  EXPECT_EQ(sizes(), (std::vector<PictureSize>{{3, 4}, {50, 60}}));
  // A picture of as many bytes, later.
  const auto before = fs::last_write_time(folder_ / "a.png");
  Write("a.png", 4, 3);
  fs::last_write_time(folder_ / "a.png", before + std::chrono::seconds(1));
  EXPECT_EQ(sizes(), (std::vector<PictureSize>{{4, 3}, {50, 60}}));
  Write("c.png", 7, 7);
  fs::remove(folder_ / "a.png");
  EXPECT_EQ(sizes(), (std::vector<PictureSize>{{50, 60}, {7, 7}}));
  // Both shares have theirs of the one file.
  for (const Share share : {Share::kTraining, Share::kHeldOut}) {
    const auto half = TakeShare(OpenImageFolder(folder_).value(), 1, share);
    EXPECT_EQ(SizesIn(*half),
              (std::vector<PictureSize>{half->ReadSize(0).value()}));
  }
}

TEST_F(SizeCacheTest, ShardsTellWhatChanged) {
  const fs::path pictures = folder_ / "pictures";
  const std::string shards = folder_ / "shards";
  fs::create_directory(pictures);
  const auto write = [&](int width) {
    fs::remove_all(shards);
    CHECK_OK(WritePng(pictures / "a.png", FilledImage(width, 9, 3, 7)));
    CHECK_OK(WriteShards(*OpenImageFolder(pictures).value(),
                         {.folder = shards, .samples_per_shard = 1}, nullptr)
                 .status());
  };
  const auto sizes = [&] {
    return SizesIn(*OpenWebDataset({.paths = {shards}}).value());
  };
  write(4);
  EXPECT_EQ(sizes(), (std::vector<PictureSize>{{9, 4}}));
  EXPECT_TRUE(fs::exists(fs::path(shards) / kSizeCacheName));
  EXPECT_EQ(sizes(), (std::vector<PictureSize>{{9, 4}}));
  const std::string kept =
      ReadFile(fs::path(shards) / kSizeCacheName, kMaxBytes).value();
  write(40);
  const fs::path shard = fs::path(shards) / "shard-000000.tar";
  fs::last_write_time(shard,
                      fs::last_write_time(shard) + std::chrono::seconds(1));
  // The old file comes back, as if nobody had removed it.
  std::ofstream(fs::path(shards) / kSizeCacheName, std::ios::binary) << kept;
  EXPECT_EQ(sizes(), (std::vector<PictureSize>{{9, 40}}));
}

}  // namespace
}  // namespace trireme
