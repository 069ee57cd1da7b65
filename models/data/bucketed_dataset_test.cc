// A folder of pictures of unlike shapes is trained on whole: each picture at
// its size, in batches of one size, as often as every other, whatever the ranks
// and wherever training resumes.

#include "models/data/bucketed_dataset.h"

#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/data/image_folder.h"
#include "models/data/loader.h"
#include "models/image/encode.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

const std::vector<PictureSize> kSizes = {{8, 8}, {12, 4}, {4, 12}};

class BucketedDatasetTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/bucketsXXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { fs::remove_all(folder_); }

  void Write(const std::string& name, int height, int width,
             uint8_t value = 0) {
    ASSERT_TRUE(
        WritePng(folder_ / name, FilledImage(width, height, 3, value)).ok());
  }
  // Seven square pictures, four that stand and two that lie, of values 1 to 13.
  void WriteThirteen() {
    for (int i = 1; i <= 13; ++i) {
      const bool square = i <= 7, stands = i <= 11;
      Write(std::to_string(100 + i) + ".png",
            square   ? 10
            : stands ? 30
                     : 5,
            square   ? 9
            : stands ? 10
                     : 16,
            static_cast<uint8_t>(i));
    }
  }
  absl::StatusOr<std::unique_ptr<Dataset>> Open(
      SmallerPictures smaller = SmallerPictures::kRefuse) {
    auto whole = OpenImageFolder(folder_);
    if (!whole.ok()) return whole.status();
    return PutIntoBuckets(*std::move(whole), kSizes, smaller);
  }

  fs::path folder_;
};

LoaderOptions Options(int64_t first, int64_t count) {
  return {.seed = 3,
          .global_batch = 4,
          .first = first,
          .count = count,
          .fields = {{.name = kPixelsField, .shape = {1, 8, 8}}}};
}

// The values of the pictures of a batch, as they were read.
std::vector<int> ValuesOf(const LoadedBatch& batch, const DataLoader& loader) {
  const auto& pixels = std::get<std::vector<float>>(batch.fields[0]);
  const int64_t elements = loader.fields(batch.bucket)[0].shape.num_elements();
  EXPECT_EQ(elements, kSizes[batch.bucket].pixels());
  std::vector<int> values;
  for (size_t i = 0; i < batch.indices.size(); ++i) {
    values.push_back(
        static_cast<int>((pixels[i * elements] + 1) * 127.5F + 0.5F));
  }
  return values;
}

TEST_F(BucketedDatasetTest, EachPictureHasTheBucketOfItsShape) {
  WriteThirteen();
  const auto dataset = Open();
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  const Buckets& buckets = *(*dataset)->buckets();
  EXPECT_EQ(buckets.samples[0], (std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(buckets.samples[1], (std::vector<int64_t>{7, 8, 9, 10}));
  EXPECT_EQ(buckets.samples[2], (std::vector<int64_t>{11, 12}));
  EXPECT_EQ((*dataset)->ReadSize(8).value(), (PictureSize{30, 10}));
}

// Whoever enlarges them says how many they are.
TEST_F(BucketedDatasetTest, PicturesThatCoverNoSizeAreFound) {
  WriteThirteen();
  const auto whole = OpenImageFolder(folder_);
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_EQ(FindSmaller(**whole, kSizes).count, 0);
  // Those that stand are 10 pixels wide, those that lie 5 high.
  const SmallerSamples found =
      FindSmaller(**whole, std::vector<PictureSize>{{11, 11}, {31, 4}});
  EXPECT_EQ(found.count, 13);
  EXPECT_NE(found.first.find("101.png of 10x9"), std::string::npos)
      << found.first;
  ASSERT_TRUE(WriteFileAtomically(folder_ / "200.png", "damaged").ok());
  EXPECT_EQ(
      FindSmaller(**OpenImageFolder(folder_), std::vector<PictureSize>{{6, 6}})
          .count,
      2);
}

TEST_F(BucketedDatasetTest, BatchesAreOfOneSizeAndTakeAllPicturesAlikeOften) {
  WriteThirteen();
  const auto dataset = Open();
  ASSERT_TRUE(dataset.ok());
  DataLoader loader(**dataset, Options(0, 4));
  std::map<int, int> visits;
  // Four epochs.
  for (int step = 0; step < 13; ++step) {
    const auto batch = loader.Next();
    ASSERT_TRUE(batch.ok()) << batch.status();
    for (const int value : ValuesOf(*batch, loader)) {
      EXPECT_EQ(value <= 7 ? 0 : value <= 11 ? 1 : 2, batch->bucket);
      ++visits[value];
    }
  }
  ASSERT_EQ(visits.size(), 13u);
  for (const auto& [value, count] : visits) {
    // Of two pictures, one batch more or less is two visits of each.
    EXPECT_NEAR(count, 4, value > 11 ? 2 : 1) << value;
  }
}

TEST_F(BucketedDatasetTest, RanksAndResumeReadTheSameBatches) {
  WriteThirteen();
  const auto dataset = Open();
  ASSERT_TRUE(dataset.ok());
  DataLoader whole(**dataset, Options(0, 4));
  DataLoader first(**dataset, Options(0, 1)), rest(**dataset, Options(1, 3));
  for (uint64_t step = 0; step < 9; ++step) {
    const auto all = whole.Next();
    const auto one = first.Next(), three = rest.Next();
    ASSERT_TRUE(all.ok() && one.ok() && three.ok());
    std::vector<int64_t> joined = one->indices;
    joined.insert(joined.end(), three->indices.begin(), three->indices.end());
    EXPECT_EQ(all->indices, joined);
    EXPECT_EQ(all->bucket, three->bucket);
    DataLoader resumed(**dataset, Options(0, 4));
    resumed.Seek(step * 4);
    const auto again = resumed.Next();
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(all->indices, again->indices);
    EXPECT_EQ(all->fields, again->fields);
  }
}

TEST_F(BucketedDatasetTest, AnotherOfItsBucketTakesAnUnreadablePicturesPlace) {
  WriteThirteen();
  const auto dataset = Open();
  ASSERT_TRUE(dataset.ok());
  // Its header stays as it was.
  const std::string path = folder_ / "109.png";
  const std::string bytes = ReadFile(path, 1 << 20).value();
  std::ofstream(path, std::ios::binary) << bytes.substr(0, 50);
  DataLoader loader(**dataset, Options(0, 4));
  for (int step = 0; step < 20; ++step) {
    const auto batch = loader.Next();
    ASSERT_TRUE(batch.ok()) << batch.status();
    for (const int value : ValuesOf(*batch, loader)) {
      EXPECT_NE(value, 9);
      EXPECT_EQ(value <= 7 ? 0 : value <= 11 ? 1 : 2, batch->bucket);
    }
  }
  EXPECT_EQ(loader.skipped(), 1);
}

TEST_F(BucketedDatasetTest, SmallerPicturesAreRefusedByCountAndName) {
  WriteThirteen();
  Write("small.png", 7, 7, 99);
  Write("smaller.png", 3, 20, 98);
  const auto refused = Open();
  EXPECT_THAT(MessageOf(refused.status()),
              HasSubstr("data.buckets.smaller: found 2 pictures"));
  EXPECT_THAT(MessageOf(refused.status()), HasSubstr("small.png of 7x7"));
  const auto left_out = Open(SmallerPictures::kLeaveOut);
  ASSERT_TRUE(left_out.ok());
  EXPECT_EQ((*left_out)->size(), 13);
  const auto& told = (*left_out)->buckets()->left_out;
  ASSERT_EQ(told.size(), 2u);
  EXPECT_EQ(told[1].name, "smaller.png");
  EXPECT_EQ(told[1].why, "3x20, smaller than every size");
  const auto enlarged = Open(SmallerPictures::kEnlarge);
  ASSERT_TRUE(enlarged.ok());
  EXPECT_EQ((*enlarged)->size(), 15);
  EXPECT_EQ((*enlarged)->buckets()->of_sample[13], 0);
  EXPECT_EQ((*enlarged)->buckets()->of_sample[14], 2);
}

TEST_F(BucketedDatasetTest, WhatHasNoSizeIsLeftOutAndTheRestIsTrainedOn) {
  Write("a.png", 9, 9, 1);
  std::ofstream(folder_ / "b.png") << "no picture";
  Write("c.png", 9, 9, 3);
  const auto dataset = Open();
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  ASSERT_EQ((*dataset)->size(), 2);
  EXPECT_EQ((*dataset)->Read(1)->image.pixels[0], 3);
  Write("a.png", 2, 2);
  Write("c.png", 2, 2);
  EXPECT_THAT(MessageOf(Open(SmallerPictures::kLeaveOut).status()),
              HasSubstr("found no sample that has a bucket (1 unreadable, 2 "
                        "smaller"));
}

// Ranks compare it: one that sees a picture at another size must not train.
TEST_F(BucketedDatasetTest, TheIndexTellsWhichPictureHasWhichSize) {
  WriteThirteen();
  const uint64_t before = Open().value()->IndexHash();
  EXPECT_EQ(before, Open().value()->IndexHash());
  Write("103.png", 30, 10);
  EXPECT_NE(before, Open().value()->IndexHash());
}

}  // namespace
}  // namespace trireme
