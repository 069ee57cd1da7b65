#include "models/data/webdataset.h"

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/data/idx.h"
#include "models/data/latents.h"
#include "models/data/shard_writer.h"
#include "models/image/encode.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;

class WebDatasetTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/shardsXXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string Write(const std::string& name, const std::string& bytes) {
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
    return folder_ / name;
  }
  static std::string Picture(uint8_t value) {
    return *EncodePng(FilledImage(4, 3, 1, value));
  }
  // A shard of n pictures 000.png … with classes 0, 1, ….
  static std::string Shard(int n) {
    TarWriter tar;
    for (int i = 0; i < n; ++i) {
      tar.Add(fmt::format("{:03}.png", i), Picture(i));
      tar.Add(fmt::format("{:03}.cls", i), fmt::format("{}", i));
    }
    return tar.Finish();
  }
  static absl::StatusOr<std::unique_ptr<Dataset>> Open(
      const std::string& path) {
    return OpenWebDataset({.paths = {path}});
  }
  std::string OpenError(const std::string& path) {
    const auto dataset = Open(path);
    return dataset.ok() ? "opened" : MessageOf(dataset.status());
  }

  fs::path folder_;
};

TEST_F(WebDatasetTest, MembersThatShareTheStemAreASample) {
  TarWriter tar;
  tar.Add("LICENSE", "free");
  tar.Add("a/x.v1.0.png", "the ending starts at the first dot");
  tar.Add("a/x.json", R"({"caption": "from json", "other": [1]})");
  tar.Add("a/x.PNG", Picture(7));
  tar.Add("a/x.cls", " 2\n");
  tar.Add("b/x.jpg", Picture(8));  // What the bytes are counts.
  tar.Add("b/x.txt", " from text\n");
  tar.Add("b/x.cls", "0");
  tar.Add("index.json", "{}");
  const auto dataset = Open(Write("s.tar", tar.Finish()));
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  ASSERT_EQ((*dataset)->size(), 2);
  EXPECT_EQ((*dataset)->num_classes(), 3);
  EXPECT_EQ((*dataset)->class_name(2), "2");
  const auto first = (*dataset)->Read(0);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_NE(first->key.find("a/x.PNG"), std::string::npos) << first->key;
  EXPECT_EQ(first->caption, "from json");
  EXPECT_EQ(first->class_id, 2);
  EXPECT_EQ(first->image.pixels[0], 7);
  const auto second = (*dataset)->Read(1);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->caption, "from text");
  EXPECT_EQ(second->class_id, 0);
  EXPECT_EQ(second->image.pixels[0], 8);
}

TEST_F(WebDatasetTest, WrittenShardsGiveTheSamplesBackAndTheSameBytesAgain) {
  const auto source = OpenIdx("/usr/share/datasets/fashion-mnist", "test");
  ASSERT_TRUE(source.ok());
  for (const std::string name : {"one", "two"}) {
    auto writer = ShardWriter::Create(
        {.folder = folder_ / name, .samples_per_shard = 20});
    ASSERT_TRUE(writer.ok()) << writer.status();
    for (int i = 0; i < 50; ++i) {
      Sample sample = *(*source)->Read(i);
      if (i % 2 == 1) {
        sample.caption = fmt::format("picture {}", i);
        sample.text_count = 2;
        sample.text_width = 1;
        sample.text_tokens = {1.0F * i, -1.0F};
        sample.text_pooled = {2.0F * i, 3.0F, 4.0F};
      }
      ASSERT_TRUE(writer->Add(*EncodeSample(sample)).ok());
    }
    std::vector<std::string> classes(10, "shirt");
    ASSERT_TRUE(writer->Finish(classes).ok());
    EXPECT_EQ(writer->shards(), 3);
  }
  const auto dataset = Open(folder_ / "one");
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  ASSERT_EQ((*dataset)->size(), 50);
  EXPECT_EQ((*dataset)->num_classes(), 10);
  EXPECT_EQ((*dataset)->class_name(9), "shirt");
  for (int i = 0; i < 50; ++i) {
    const auto sample = (*dataset)->Read(i);
    const auto expected = (*source)->Read(i);
    ASSERT_TRUE(sample.ok()) << sample.status();
    EXPECT_EQ(sample->image.pixels, expected->image.pixels);
    EXPECT_EQ(sample->class_id, expected->class_id);
    EXPECT_EQ(sample->text_count, i % 2 * 2);
    if (i % 2 == 1) {
      EXPECT_EQ(sample->caption, fmt::format("picture {}", i));
      EXPECT_EQ(sample->text_tokens, (std::vector<float>{1.0F * i, -1}));
      EXPECT_EQ(sample->text_pooled, (std::vector<float>{2.0F * i, 3, 4}));
    }
  }
  for (const std::string name :
       {"shard-000000.tar", "shard-000002.tar", "classes.txt"}) {
    EXPECT_EQ(*ReadFile(folder_ / "one" / name, 1 << 30),
              *ReadFile(folder_ / "two" / name, 1 << 30));
  }
}

TEST_F(WebDatasetTest, WhatReadersWouldRefuseIsNotWritten) {
  Sample sample;
  sample.key = "long.png";
  sample.image = FilledImage(1, 1, 1, 0);
  sample.caption.assign(64 << 10, 'x');
  EXPECT_TRUE(EncodeSample(sample).ok());
  sample.caption += 'x';
  EXPECT_EQ(MessageOf(EncodeSample(sample).status()),
            "long.png: caption of 65537 bytes, expected at most 65536");
}

TEST_F(WebDatasetTest, ShardsAreNotMixedIntoOthers) {
  Write("old.tar", Shard(1));
  EXPECT_NE(MessageOf(ShardWriter::Create({.folder = folder_}).status())
                .find("old.tar"),
            std::string::npos);
}

TEST_F(WebDatasetTest, DamagedSamplesAreErrorsThatNameShardAndMember) {
  TarWriter tar;
  tar.Add("0.png", "not a picture");
  tar.Add("1.png", Picture(1));
  tar.Add("2.png", Picture(2));
  tar.Add("2.cls", "shirt");
  tar.Add("3.png", Picture(3));
  tar.Add("3.tokens", "short");
  tar.Add("4.png", Picture(4));
  tar.Add("4.json", "{");
  tar.Add("5.png", Picture(5));
  tar.Add("5.cls", std::string(1000, '1'));
  const auto dataset = Open(Write("s.tar", tar.Finish()));
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  ASSERT_EQ((*dataset)->size(), 6);
  for (const int i : {0, 2, 3, 4, 5}) {
    const std::string message = MessageOf((*dataset)->Read(i).status());
    EXPECT_NE(message.find("s.tar"), std::string::npos) << message;
    EXPECT_NE(message.find(fmt::format("{}.", i)), std::string::npos)
        << message;
  }
  EXPECT_TRUE((*dataset)->Read(1).ok());
}

TEST_F(WebDatasetTest, ClassesBeyondTheStatedNumberAreErrorsOfTheirSamples) {
  const auto dataset =
      OpenWebDataset({.paths = {Write("s.tar", Shard(4))}, .num_classes = 3});
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  EXPECT_EQ((*dataset)->num_classes(), 3);
  EXPECT_TRUE((*dataset)->Read(2).ok());
  EXPECT_NE(MessageOf((*dataset)->Read(3).status()).find("class 3"),
            std::string::npos);
}

TEST_F(WebDatasetTest, ATruncatedShardGivesWhatLiesBeforeTheCut) {
  const std::string bytes = Shard(10);
  for (size_t length = 0; length < bytes.size(); length += 200) {
    const auto dataset = Open(Write("cut.tar", bytes.substr(0, length)));
    if (!dataset.ok()) continue;
    int readable = 0;
    for (int64_t i = 0; i < (*dataset)->size(); ++i) {
      readable += (*dataset)->Read(i).ok();
    }
    EXPECT_GE(readable, (*dataset)->size() - 1) << length;
    // A sample takes 4 blocks of 512 bytes.
    EXPECT_GE((*dataset)->size(), static_cast<int64_t>(length / 2048));
  }
}

// A full disk or a broken copy cuts at multiples of the file system's block: a
// cut between two members leaves a file that reads well to its end.
TEST_F(WebDatasetTest, AShardCutBetweenTwoMembersIsReported) {
  const std::string whole = Shard(10);
  // A sample takes 4 blocks of 512 bytes.
  for (const size_t samples : {1, 6}) {
    const std::string path =
        Write("cut.tar", whole.substr(0, samples * 4 * 512));
    testing::internal::CaptureStderr();
    const auto dataset = Open(path);
    const std::string log = testing::internal::GetCapturedStderr();
    ASSERT_TRUE(dataset.ok()) << dataset.status();
    EXPECT_EQ((*dataset)->size(), samples);
    EXPECT_NE(log.find(fmt::format("cut.tar: ends at byte {} without an "
                                   "end-of-archive block",
                                   samples * 2048)),
              std::string::npos)
        << log;
    EXPECT_NE(log.find(fmt::format("using the {} samples", samples)),
              std::string::npos)
        << log;
  }
  testing::internal::CaptureStderr();
  ASSERT_TRUE(Open(Write("whole.tar", whole)).ok());
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST_F(WebDatasetTest, ACutInsideAMemberSaysWhere) {
  testing::internal::CaptureStderr();
  const auto dataset =
      Open(Write("cut.tar", Shard(10).substr(0, 2 * 2048 + 600)));
  const std::string log = testing::internal::GetCapturedStderr();
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  EXPECT_NE(log.find("after the member at byte 4096"), std::string::npos)
      << log;
  EXPECT_EQ(log.find("not compressed"), std::string::npos) << log;
}

// Stages that need a text's length alone must not decode its picture.
TEST_F(WebDatasetTest, ReadsOnlyThePartsAskedFor) {
  TarWriter tar;
  tar.Add("a.png", "no picture at all");
  tar.Add("a.txt", "a caption");
  const auto dataset = Open(Write("parts.tar", tar.Finish()));
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  EXPECT_FALSE((*dataset)->Read(0).ok());
  const auto sample = (*dataset)->ReadParts(0, {.caption = true});
  ASSERT_TRUE(sample.ok()) << sample.status();
  EXPECT_EQ(sample->caption, "a caption");
}

// A generator of shapes' latents is shown the shape's picture. A stage of a
// pipeline that reads no latents must know of it as the first one does.
TEST_F(WebDatasetTest, SetsOfLatentsHaveTheirPicturesBesideThem) {
  const LatentFormat format = {
      .channels = 2, .height = 3, .width = 1, .of_sets = true};
  const std::string latents =
      SerializeLatents(format, {.height = 3, .width = 1}, {1, 2, 3, 4, 5, 6},
                       {0, 0, 0, 0, 0, 0});
  TarWriter tar;
  tar.Add("a.png", Picture(7));
  tar.Add("a.latents", latents);
  tar.Add("b.latents", latents);
  const std::string path = Write("sets.tar", tar.Finish());
  const auto dataset = OpenWebDataset({.paths = {path}, .latents = format});
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  ASSERT_EQ((*dataset)->size(), 2);
  const auto whole = (*dataset)->Read(0);
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_EQ(whole->latents.mean, (std::vector<float>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(whole->image.pixels, FilledImage(4, 3, 1, 7).pixels);
  const auto picture = (*dataset)->ReadParts(0, {.image = true});
  ASSERT_TRUE(picture.ok()) << picture.status();
  EXPECT_EQ(picture->image.pixels, whole->image.pixels);
  EXPECT_TRUE(picture->latents.mean.empty());
  const auto without = (*dataset)->Read(1);
  ASSERT_TRUE(without.ok()) << without.status();
  EXPECT_TRUE(without->image.pixels.empty());
  EXPECT_FALSE(without->latents.mean.empty());
}

// They are skipped and counted, as pictures that cannot be read are.
TEST_F(WebDatasetTest, CaptionsThatAreNotUtf8AreUnreadable) {
  TarWriter tar;
  tar.Add("a.png", "no picture at all");
  tar.Add("a.txt", "caf\xe9");
  tar.Add("b.png", "no picture at all");
  tar.Add("b.txt", "caf\xc3\xa9");
  tar.Add("c.png", "no picture at all");
  tar.Add("c.json", "{\"caption\": \"caf\xe9\"}");
  const auto dataset = Open(Write("utf8.tar", tar.Finish()));
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  const absl::Status latin1 =
      (*dataset)->ReadParts(0, {.caption = true}).status();
  EXPECT_NE(MessageOf(latin1).find("a.txt: found the byte 0xe9 after 3 bytes "
                                   "of text, expected a caption in UTF-8"),
            std::string::npos)
      << latin1;
  EXPECT_TRUE((*dataset)->ReadParts(1, {.caption = true}).ok());
  EXPECT_FALSE((*dataset)->ReadParts(2, {.caption = true}).ok());
  // Nobody reads them.
  EXPECT_TRUE((*dataset)->ReadParts(0, {}).ok());
}

TEST_F(WebDatasetTest, HostileBytesNeverCrash) {
  const std::string good = Shard(3);
  uint32_t state = 1;
  for (int trial = 0; trial < 300; ++trial) {
    std::string bytes = good;
    for (int i = 0; i < 8; ++i) {
      state = state * 1664525 + 1013904223;
      // Half of the damage within the first headers.
      const size_t range = i % 2 == 0 ? bytes.size() : 1600;
      bytes[(state >> 8) % range] = static_cast<char>(state >> 3);
    }
    const auto dataset = Open(Write("hostile.tar", bytes));
    if (!dataset.ok()) continue;
    for (int64_t i = 0; i < (*dataset)->size(); ++i) {
      const auto sample = (*dataset)->Read(i);
      EXPECT_TRUE(!sample.ok() || IsValid(sample->image));
    }
  }
}

TEST_F(WebDatasetTest, WhatHoldsNoSampleIsAnErrorThatNamesIt) {
  EXPECT_NE(OpenError(folder_ / "missing.tar").find("missing.tar"),
            std::string::npos);
  EXPECT_NE(OpenError(folder_).find("no .tar file"), std::string::npos);
  EXPECT_NE(OpenError(Write("text.tar", "this is no archive")).find("text.tar"),
            std::string::npos);
  TarWriter tar;
  tar.Add("a.cls", "1");
  EXPECT_NE(OpenError(Write("empty.tar", tar.Finish())).find("no sample"),
            std::string::npos);
}

TEST_F(WebDatasetTest, AShardThatIsNoArchiveCostsItsSamplesOnly) {
  const std::string bad = Write("0.tar", std::string(4096, 'x'));
  TarWriter tar;
  tar.Add("a.png", Picture(7));
  const std::string good = Write("1.tar", tar.Finish());
  const auto dataset = OpenWebDataset({.paths = {bad, good}});
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  ASSERT_EQ((*dataset)->size(), 1);
  EXPECT_EQ((*dataset)->Read(0)->image, FilledImage(4, 3, 1, 7));
  // Alone it is an error, at a byte that exists.
  EXPECT_NE(OpenError(bad).find("0.tar: "), std::string::npos);
}

TEST_F(WebDatasetTest, ConvertingSkipsWhatCannotBeRead) {
  TarWriter tar;
  tar.Add("0.png", Picture(0));
  tar.Add("1.png", "damaged");
  tar.Add("2.png", Picture(2));
  const auto source = Open(Write("s.tar", tar.Finish()));
  ASSERT_TRUE(source.ok());
  int64_t done = 0;
  const auto summary = WriteShards(**source, {.folder = folder_ / "new"},
                                   [&](int64_t n) { done = n; });
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->samples, 2);
  EXPECT_EQ(summary->skipped, 1);
  EXPECT_EQ(summary->shards, 1);
  EXPECT_EQ(done, 3);
  EXPECT_EQ((*Open(folder_ / "new"))->size(), 2);
}

// Shards are compared and cached by their bytes.
TEST_F(WebDatasetTest, ThreadsChangeNoByteOfTheShards) {
  TarWriter tar;
  for (int i = 0; i < 150; ++i) {
    const std::string stem = fmt::format("{:04}", i);
    if (i == 70) {
      tar.Add(stem + ".png", "broken");
      continue;
    }
    Image image = FilledImage(5, 3, 3, static_cast<uint8_t>(i));
    image.pixels[i % image.pixels.size()] = 255;
    tar.Add(stem + ".png", *EncodePng(image));
    tar.Add(stem + ".cls", fmt::format("{}", i % 4));
    tar.Add(stem + ".txt", fmt::format("picture {}", i));
  }
  const auto source = Open(Write("s.tar", tar.Finish()));
  ASSERT_TRUE(source.ok()) << source.status();
  for (const int threads : {1, 3}) {
    const auto summary =
        WriteShards(**source, {.folder = folder_ / fmt::format("t{}", threads),
                               .samples_per_shard = 40,
                               .threads = threads});
    ASSERT_TRUE(summary.ok()) << summary.status();
    EXPECT_EQ(summary->samples, 149);
    EXPECT_EQ(summary->skipped, 1);
    EXPECT_EQ(summary->shards, 4);
  }
  for (int shard = 0; shard < 4; ++shard) {
    const std::string name = fmt::format("shard-{:06}.tar", shard);
    EXPECT_EQ(*ReadFile(folder_ / "t1" / name, 1 << 20),
              *ReadFile(folder_ / "t3" / name, 1 << 20))
        << name;
  }
}

}  // namespace
}  // namespace trireme
