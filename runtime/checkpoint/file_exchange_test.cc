// Files that go from rank to rank arrive as they were, or not at all.

#include "runtime/checkpoint/file_exchange.h"

#include <filesystem>
#include <numeric>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "gtest/gtest.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr int kRanks = 3;
constexpr int64_t kMostBytes = 32 << 20;

CheckpointFile ContentOf(const std::string& bytes) {
  Checksum checksum;
  checksum.Update(bytes);
  return checksum.Result();
}

class FileExchangeTest : public ::testing::Test {
 protected:
  FileExchangeTest() : folder_(testing::TempDir() + "/file_exchange_test/") {
    std::filesystem::remove_all(folder_);
    CHECK_OK(MakeDirectories(folder_));
  }

  // A file of `rank` with other bytes than any other.
  ExchangedFile Make(int rank, const std::string& name, int64_t bytes) const {
    std::string content(bytes, static_cast<char>('a' + rank));
    for (int64_t i = 0; i < bytes; i += 4096)
      content[i] = static_cast<char>(i >> 12);
    ExchangedFile file{.path = folder_ + name, .content = ContentOf(content)};
    CHECK_OK(WriteFileAtomically(file.path, content));
    return file;
  }
  // Each rank sends its list to the next, which writes it as NAME.copy.
  std::vector<absl::Status> PassOn(
      const std::vector<std::vector<ExchangedFile>>& lists) {
    std::vector<absl::Status> statuses(kRanks);
    RunThreadRanks(kRanks, [&](CommunicatorFactory& factory, int rank) {
      std::vector<int> ranks(kRanks);
      std::iota(ranks.begin(), ranks.end(), 0);
      const auto group = factory.Create(ranks, "files");
      const int before = (rank + kRanks - 1) % kRanks;
      std::vector<ExchangedFile> sent = lists[rank], received = lists[before];
      for (ExchangedFile& file : sent) file.peer = (rank + 1) % kRanks;
      for (ExchangedFile& file : received) {
        file.peer = before;
        file.path += ".copy";
      }
      statuses[rank] = ExchangeFiles(*group, sent, received);
    });
    return statuses;
  }
  bool Arrived(const ExchangedFile& file) const {
    const auto copy = ReadFile(file.path + ".copy", kMostBytes);
    return copy.ok() && *copy == ReadFile(file.path, kMostBytes).value();
  }

  const std::string folder_;
};

TEST_F(FileExchangeTest, FilesOfAnySizeArrive) {
  std::vector<std::vector<ExchangedFile>> lists(kRanks);
  lists[0] = {Make(0, "large", (9 << 20) + 1), Make(0, "empty", 0),
              Make(0, "small", 5)};
  // Nobody has as many pieces as the other, and one has none.
  lists[1] = {Make(1, "whole_piece", 4 << 20)};
  for (const absl::Status& status : PassOn(lists)) {
    EXPECT_TRUE(status.ok()) << status;
  }
  for (const auto& list : lists) {
    for (const ExchangedFile& file : list) {
      EXPECT_TRUE(Arrived(file)) << file.path;
    }
  }
}

TEST_F(FileExchangeTest, WhatIsNotTheFileIsNotKeptAndOthersAre) {
  std::vector<std::vector<ExchangedFile>> lists(kRanks);
  lists[0] = {Make(0, "changed", 5000), Make(0, "sound", 5000)};
  CHECK_OK(WriteFileAtomically(lists[0][0].path, std::string(5000, 'x')));
  lists[1] = {Make(1, "gone", 5000)};
  std::filesystem::remove(lists[1][0].path);
  const std::vector<absl::Status> statuses = PassOn(lists);
  EXPECT_TRUE(statuses[0].ok()) << statuses[0];
  EXPECT_EQ(statuses[1].code(), absl::StatusCode::kDataLoss) << statuses[1];
  EXPECT_EQ(statuses[2].code(), absl::StatusCode::kDataLoss) << statuses[2];
  EXPECT_FALSE(std::filesystem::exists(lists[0][0].path + ".copy"));
  EXPECT_TRUE(Arrived(lists[0][1]));
  EXPECT_FALSE(std::filesystem::exists(lists[1][0].path + ".copy"));
}

}  // namespace
}  // namespace trireme
