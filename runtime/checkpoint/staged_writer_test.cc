// What training saves while it goes on: the state at that time, whole, or an
// error, whatever the buffer's size.

#include "runtime/checkpoint/staged_writer.h"

#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "runtime/device/host.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kElements = 2000;

class StagedWriterTest : public ::testing::Test {
 protected:
  StagedWriterTest() : folder_(testing::TempDir() + "/staged_writer_test") {
    std::filesystem::remove_all(folder_);
    CHECK_OK(MakeDirectories(folder_));
    for (int i = 0; i < 3; ++i) {
      std::vector<float> values(kElements + i);
      std::iota(values.begin(), values.end(), 1000.0f * i);
      tensors_.push_back(
          Upload<float>(device_, {kElements + i}, std::span(values)));
    }
  }

  Tensor Buffer(int64_t bytes) {
    return Tensor::Empty(device_, {bytes}, DType::kUint8,
                         MemoryCategory::kWorkspace);
  }
  std::vector<SafetensorsEntry> Entries() const {
    std::vector<SafetensorsEntry> entries;
    for (int i = 0; i < 3; ++i) {
      entries.push_back(
          {std::string(1, 'a' + i), DType::kFloat32, tensors_[i].shape()});
    }
    return entries;
  }
  void WriteAll(StagedWriter& writer, const std::string& path) {
    writer.Begin(path, Entries());
    for (int i = 0; i < 3; ++i) {
      writer.Append(std::string(1, 'a' + i), tensors_[i]);
    }
    writer.End();
  }
  std::string Plain() {
    const std::string path = folder_ + "/plain";
    auto writer =
        SafetensorsWriter::Create(path, Entries(), {{"format", "pt"}}).value();
    for (int i = 0; i < 3; ++i) {
      CHECK_OK(writer->Append(std::string(1, 'a' + i), tensors_[i].raw_data(),
                              tensors_[i].bytes()));
    }
    CHECK_OK(writer->Commit().status());
    return ReadFile(path, 1 << 20).value();
  }

  const std::string folder_;
  CpuDevice device_{std::numeric_limits<int64_t>::max()};
  std::vector<Tensor> tensors_;
};

class StagedWriterBufferTest : public StagedWriterTest,
                               public ::testing::WithParamInterface<int64_t> {};

TEST_P(StagedWriterBufferTest, WritesWhatTheTensorsWereWhenTheyWereGiven) {
  const std::string expected = Plain();
  StagedWriter writer(Buffer(GetParam()));
  for (const char* name : {"/first", "/second"}) {
    const std::string path = folder_ + name;
    WriteAll(writer, path);
    bool after = false;
    writer.Then([&] {
      after = std::filesystem::exists(path);
      return absl::OkStatus();
    });
    // Training goes on: a step changes them.
    std::vector<std::vector<float>> before;
    for (const Tensor& tensor : tensors_) {
      before.push_back(Download<float>(tensor));
      for (float& value : HostView<float>(tensor)) value = -1;
    }
    const auto written = writer.Finish().value();
    EXPECT_TRUE(writer.Idle());
    EXPECT_TRUE(after);
    EXPECT_EQ(ReadFile(path, 1 << 20).value(), expected);
    Checksum checksum;
    checksum.Update(expected);
    EXPECT_EQ(written.at(path), checksum.Result());
    for (int i = 0; i < 3; ++i) {
      std::copy(before[i].begin(), before[i].end(),
                HostView<float>(tensors_[i]).begin());
    }
  }
}

// All of it, a part, less than a tensor, not a multiple of an element.
INSTANTIATE_TEST_SUITE_P(Buffers, StagedWriterBufferTest,
                         ::testing::Values(1 << 20, 10000, 1000, 7));

TEST_F(StagedWriterTest, AFullDiskIsAnErrorAndTheNextFileIsTried) {
  // Files may grow to half of this one's size.
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit limited = before;
  limited.rlim_cur = 2 * kElements * sizeof(float);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limited), 0);
  StagedWriter writer(Buffer(1000));
  WriteAll(writer, folder_ + "/file");
  bool ran = false;
  writer.Then([&] {
    ran = true;
    return absl::OkStatus();
  });
  const absl::Status status = writer.Finish().status();
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_THAT(MessageOf(status), HasSubstr("/file: cannot write"));
  EXPECT_FALSE(ran) << "a manifest of a file that is not there";
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
  WriteAll(writer, folder_ + "/file");
  EXPECT_EQ(writer.Finish()->size(), 1u);
}

TEST_F(StagedWriterTest, WhatIsGivenUpLeavesNoFile) {
  {
    StagedWriter writer(Buffer(1000));
    writer.Begin(folder_ + "/file", Entries());
    writer.Append("a", tensors_[0]);
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

}  // namespace
}  // namespace trireme
