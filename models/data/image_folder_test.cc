#include "models/data/image_folder.h"

#include <filesystem>
#include <fstream>
#include <string>

#include "gtest/gtest.h"
#include "models/data/text_tokens.h"
#include "models/image/encode.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;

class ImageFolderTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/foldersXXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { fs::remove_all(folder_); }

  void WritePicture(const std::string& name, uint8_t value) {
    fs::create_directories((folder_ / name).parent_path());
    ASSERT_TRUE(WritePng(folder_ / name, FilledImage(4, 3, 3, value)).ok());
  }
  void WriteText(const std::string& name, const std::string& bytes) {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
  }

  fs::path folder_;
};

TEST_F(ImageFolderTest, SubfoldersAreClassesInTheOrderOfTheirNames) {
  WritePicture("zebra/a.png", 1);
  WritePicture("ant/b.png", 2);
  WritePicture("ant/a.PNG", 3);
  WriteText("ant/notes.md", "not a picture");
  WriteText("ant/.a.png", "hidden");
  WriteText("empty/readme", "no picture here");
  const auto dataset = OpenImageFolder(folder_);
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  ASSERT_EQ((*dataset)->size(), 3);
  ASSERT_EQ((*dataset)->num_classes(), 2);
  EXPECT_EQ((*dataset)->class_name(0), "ant");
  EXPECT_EQ((*dataset)->class_name(1), "zebra");
  const int values[] = {3, 2, 1};
  const int classes[] = {0, 0, 1};
  for (int i = 0; i < 3; ++i) {
    const auto sample = (*dataset)->Read(i);
    ASSERT_TRUE(sample.ok()) << sample.status();
    EXPECT_EQ(sample->image.pixels[0], values[i]);
    EXPECT_EQ(sample->class_id, classes[i]);
  }
  EXPECT_EQ((*dataset)->Read(0)->key, "ant/a.PNG");
}

TEST_F(ImageFolderTest, PicturesWithoutSubfoldersHaveNoClass) {
  WritePicture("b.png", 1);
  const auto dataset = OpenImageFolder(folder_);
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  EXPECT_EQ((*dataset)->num_classes(), 0);
  EXPECT_EQ((*dataset)->Read(0)->class_id, -1);
}

TEST_F(ImageFolderTest, CaptionsAndTextStatesLieBesideThePicture) {
  WritePicture("c/x.png", 1);
  WriteText("c/x.txt", " a gray picture\n");
  Sample text;
  text.text_tokens = {1, 2, 3, 4, 5, 6};
  text.text_count = 2;
  text.text_width = 3;
  WriteText("c/x.tokens", SerializeTextTokens(text));
  text.text_pooled = {7, 8};
  WriteText("c/x.pooled", SerializePooledText(text));
  const auto sample = (*OpenImageFolder(folder_))->Read(0);
  ASSERT_TRUE(sample.ok()) << sample.status();
  EXPECT_EQ(sample->text_pooled, text.text_pooled);
  EXPECT_EQ(sample->caption, "a gray picture");
  EXPECT_EQ(sample->text_tokens, text.text_tokens);
  EXPECT_EQ(sample->text_count, 2);
  EXPECT_EQ(sample->text_width, 3);
}

// A model that reads bytes would learn those of whatever encoding it was.
TEST_F(ImageFolderTest, CaptionsThatAreNoUtf8AreErrorsOfTheirSample) {
  WritePicture("c/x.png", 1);
  WriteText("c/x.txt", "caf\xe9");
  const auto dataset = OpenImageFolder(folder_);
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  const std::string error = MessageOf((*dataset)->Read(0).status());
  EXPECT_NE(error.find("c/x.txt: found the byte 0xe9 after 3 bytes of text, "
                       "expected a caption in UTF-8"),
            std::string::npos)
      << error;
}

TEST_F(ImageFolderTest, DamagedFilesAreErrorsOfTheirSampleThatNameThem) {
  WriteText("c/damaged.png", "\x89PNG and no more");
  WritePicture("c/good.png", 7);
  WritePicture("c/text.png", 7);
  WriteText("c/text.tokens", "abc");
  WritePicture("c/told.png", 7);
  WriteText("c/told.txt", std::string((64 << 10) + 1, 'x'));
  const auto dataset = OpenImageFolder(folder_);
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  EXPECT_NE(MessageOf((*dataset)->Read(0).status()).find("c/damaged.png"),
            std::string::npos);
  EXPECT_TRUE((*dataset)->Read(1).ok());
  EXPECT_NE(MessageOf((*dataset)->Read(2).status()).find("c/text.tokens"),
            std::string::npos);
  // As long as no shard may hold it.
  EXPECT_NE(MessageOf((*dataset)->Read(3).status()).find("c/told.txt"),
            std::string::npos);
}

TEST_F(ImageFolderTest, AFolderWithoutPicturesIsAnError) {
  EXPECT_NE(MessageOf(OpenImageFolder(folder_).status()).find("no picture"),
            std::string::npos);
  const std::string missing = folder_ / "missing";
  EXPECT_NE(MessageOf(OpenImageFolder(missing).status()).find(missing),
            std::string::npos);
}

TEST(TextTokensTest, HostileHeadersAreRefused) {
  Sample sample;
  const std::string huge = "\xff\xff\xff\xff\xff\xff\xff\xff";
  EXPECT_TRUE(absl::IsInvalidArgument(ParseTextTokens(huge, sample)));
  EXPECT_TRUE(absl::IsDataLoss(ParseTextTokens("", sample)));
  const std::string nan("\1\0\0\0\1\0\0\0\0\0\xc0\x7f", 12);
  EXPECT_TRUE(absl::IsInvalidArgument(ParseTextTokens(nan, sample)));
  EXPECT_TRUE(absl::IsDataLoss(ParseTextTokens(nan.substr(0, 11), sample)));
  EXPECT_TRUE(sample.text_tokens.empty());
  sample.text_tokens = {1, 2};
  sample.text_count = 2;
  sample.text_width = 1;
  EXPECT_TRUE(absl::IsInvalidArgument(
      ParsePooledText(SerializeTextTokens(sample), sample)));
}

}  // namespace
}  // namespace trireme
