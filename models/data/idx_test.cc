#include "models/data/idx.h"

#include <zlib.h>

#include <fstream>
#include <string>

#include "gtest/gtest.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr char kFashionMnist[] = "/usr/share/datasets/fashion-mnist";

std::string BigEndian(uint32_t value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16),
          static_cast<char>(value >> 8), static_cast<char>(value)};
}

std::string ImagesFile(uint32_t count, uint32_t rows, uint32_t columns,
                       const std::string& pixels) {
  return BigEndian(0x803) + BigEndian(count) + BigEndian(rows) +
         BigEndian(columns) + pixels;
}

std::string LabelsFile(uint32_t count, const std::string& labels) {
  return BigEndian(0x801) + BigEndian(count) + labels;
}

class IdxTest : public testing::Test {
 protected:
  void Write(const std::string& name, const std::string& bytes) {
    std::ofstream(folder_ + "/" + name, std::ios::binary) << bytes;
  }
  void WriteGzip(const std::string& name, const std::string& bytes) {
    gzFile file = gzopen((folder_ + "/" + name).c_str(), "wb");
    ASSERT_NE(file, nullptr);
    ASSERT_EQ(gzwrite(file, bytes.data(), bytes.size()),
              static_cast<int>(bytes.size()));
    ASSERT_EQ(gzclose(file), Z_OK);
  }
  // The error of opening a training split of these two files.
  std::string ErrorOf(const std::string& images, const std::string& labels) {
    Write("train-images-idx3-ubyte", images);
    Write("train-labels-idx1-ubyte", labels);
    const auto dataset = OpenIdx(folder_, "train");
    return dataset.ok() ? "opened" : MessageOf(dataset.status());
  }

  void SetUp() override {
    std::string pattern = testing::TempDir() + "/idxXXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }

  std::string folder_;
};

TEST_F(IdxTest, ReadsPicturesAndLabelsRawAndCompressed) {
  Write("train-images-idx3-ubyte", ImagesFile(2, 2, 3, "abcdefABCDEF"));
  WriteGzip("train-labels-idx1-ubyte.gz", LabelsFile(2, {'\4', '\1'}));
  const auto dataset = OpenIdx(folder_, "train");
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  EXPECT_EQ((*dataset)->size(), 2);
  EXPECT_EQ((*dataset)->num_classes(), 5);
  EXPECT_EQ((*dataset)->class_name(4), "4");
  const auto sample = (*dataset)->Read(1);
  ASSERT_TRUE(sample.ok());
  EXPECT_EQ(sample->image.width, 3);
  EXPECT_EQ(sample->image.height, 2);
  EXPECT_EQ(sample->image.channels, 1);
  EXPECT_EQ(*sample->image.At(2, 1), 'F');
  EXPECT_EQ(sample->class_id, 1);
  EXPECT_NE(sample->key, (*dataset)->Read(0)->key);
}

// A model that reads captions learns the words for classes.
TEST_F(IdxTest, CaptionsAreTheNamesOfClasses) {
  Write("train-images-idx3-ubyte", ImagesFile(2, 1, 1, "xy"));
  Write("train-labels-idx1-ubyte", LabelsFile(2, {'\1', '\0'}));
  const auto dataset = OpenIdx(folder_, "train", {"shoe", "bag"});
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  EXPECT_EQ((*dataset)->ReadParts(0, {.caption = true})->caption, "bag");
  EXPECT_EQ((*dataset)->ReadParts(1, {.caption = true})->caption, "shoe");
}

TEST_F(IdxTest, RefusesWhatIsNotAWholeIdxFileNamingIt) {
  const std::string labels = LabelsFile(1, {'\0'});
  const std::string images = ImagesFile(1, 1, 1, "x");
  EXPECT_EQ(ErrorOf(images, labels), "opened");
  const std::string name = "train-images-idx3-ubyte";
  for (const std::string& bad :
       {std::string(), std::string("PNG"), labels, images + "y",
        ImagesFile(1, 2, 2, "abc"), ImagesFile(0, 2, 2, ""),
        ImagesFile(1, 0, 2, ""), ImagesFile(1, 5000, 1, ""),
        ImagesFile(0xffffffff, 4096, 4096, "")}) {
    EXPECT_NE(ErrorOf(bad, labels).find(name), std::string::npos)
        << ErrorOf(bad, labels);
  }
  EXPECT_NE(ErrorOf(ImagesFile(2, 1, 1, "xy"), labels).find("1 labels"),
            std::string::npos);
}

TEST_F(IdxTest, AFalseHeaderDoesNotTakeTheMemoryItAnnounces) {
  // 4 GiB announced, one byte there; the test runs under a memory limit only
  // where the machine sets one, but the error must come at once.
  EXPECT_NE(ErrorOf(ImagesFile(256, 4096, 4096, "x"), LabelsFile(1, {'\0'}))
                .find("ends after 1 of"),
            std::string::npos);
}

TEST_F(IdxTest, NamesWhatIsMissingOrContradictsTheLabels) {
  EXPECT_NE(MessageOf(OpenIdx(folder_, "train").status())
                .find("train-images-idx3-ubyte"),
            std::string::npos);
  EXPECT_NE(MessageOf(OpenIdx(folder_, "validation").status()).find("\"test\""),
            std::string::npos);
  Write("t10k-images-idx3-ubyte", ImagesFile(1, 1, 1, "x"));
  Write("t10k-labels-idx1-ubyte", LabelsFile(1, {'\2'}));
  EXPECT_NE(
      MessageOf(OpenIdx(folder_, "test", {"a", "b"}).status()).find("label 2"),
      std::string::npos);
}

TEST(FashionMnistTest, OpensAsPackaged) {
  const auto train = OpenIdx(kFashionMnist, "train");
  ASSERT_TRUE(train.ok()) << train.status();
  EXPECT_EQ((*train)->size(), 60000);
  EXPECT_EQ((*train)->num_classes(), 10);
  EXPECT_EQ((*train)->Read(0)->class_id, 9);  // An ankle boot.
  EXPECT_EQ((*train)->Read(59999)->image.width, 28);
}

}  // namespace
}  // namespace trireme
