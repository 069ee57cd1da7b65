// A run does not go on with other samples than it was begun with.

#include "trainer/run/data_record.h"

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"
#include "trainer/run/class_names.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

class NamedDataset final : public Dataset {
 public:
  NamedDataset(int64_t size, uint64_t index_hash,
               std::vector<std::string> classes)
      : size_(size), index_hash_(index_hash), classes_(std::move(classes)) {}

  int64_t size() const override { return size_; }
  int64_t num_classes() const override {
    return static_cast<int64_t>(classes_.size());
  }
  std::string class_name(int64_t id) const override { return classes_[id]; }
  uint64_t IndexHash() const override { return index_hash_; }
  absl::StatusOr<Sample> ReadParts(int64_t, const SampleParts&) const override {
    return Sample();
  }

 private:
  const int64_t size_;
  const uint64_t index_hash_;
  const std::vector<std::string> classes_;
};

TEST(DataRecordTest, OtherSamplesAndClassesAreRefusedUnlessAllowed) {
  const RunFolder run(testing::TempDir() + "/data_record_test");
  fs::remove_all(run.root());
  fs::create_directories(run.root());
  const NamedDataset begun(10, 7, {"bag", "shoe\n"});
  // A run from before there was a record.
  EXPECT_TRUE(CheckSameData(run, begun, {}).ok());
  ASSERT_TRUE(WriteClassNames(run, ClassNamesOf(begun)).ok());
  ASSERT_TRUE(WriteDataRecord(run, begun, 0).ok());
  EXPECT_TRUE(CheckSameData(run, begun, {}).ok());

  const auto error = [&](const NamedDataset& now) {
    return MessageOf(CheckSameData(run, now, {"seed"}));
  };
  EXPECT_THAT(error({11, 7, {"bag", "shoe\n"}}),
              AllOf(HasSubstr("10 samples in the run, 11 now"),
                    HasSubstr("`--allow data` goes on")));
  EXPECT_THAT(error({10, 8, {"bag", "shoe\n"}}),
              HasSubstr("as many samples, 10, but others"));
  EXPECT_THAT(error({10, 7, {"boot", "bag"}}),
              HasSubstr("class 0 is 'bag' in the run, 'boot' now"));
  EXPECT_THAT(error({10, 7, {"bag"}}),
              HasSubstr("2 classes in the run, 1 now"));

  const NamedDataset other(12, 9, {"bag"});
  EXPECT_TRUE(CheckSameData(run, other, {"data"}).ok());
  EXPECT_TRUE(CheckSameData(run, other, {"data.image_folder.path"}).ok());
  // What was before it is still told.
  ASSERT_TRUE(WriteDataRecord(run, other, 40).ok());
  EXPECT_THAT(
      ReadFile(run.root() + "/data.until_step_00000040.json", 1 << 10).value(),
      HasSubstr("\"samples\":10"));
  ASSERT_TRUE(WriteFileAtomically(run.data_record(), "[]").ok());
  EXPECT_TRUE(absl::IsDataLoss(CheckSameData(run, begun, {})));
  fs::remove_all(run.root());
}

}  // namespace
}  // namespace trireme
