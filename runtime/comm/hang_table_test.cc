// What a user reads when a job hangs: who waits for whom, and what went wrong
// first.

#include "runtime/comm/hang_table.h"

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/comm/hang_report.h"
#include "runtime/comm/wait_registry.h"

namespace trireme {
namespace {

using testing::ContainsRegex;
using testing::HasSubstr;

// Ranks that communicate in one group, as their registries see it.
class HangTableTest : public testing::Test {
 protected:
  static constexpr int kRanks = 3;

  HangTableTest() {
    for (int rank = 0; rank < kRanks; ++rank) {
      registries_.push_back(std::make_unique<WaitRegistry>(rank));
      registries_[rank]->AddCommunicator("tp [0-2]", std::vector{0, 1, 2});
    }
  }

  std::shared_ptr<const OperationNote> Collective(int rank, std::string text,
                                                  int64_t sequence,
                                                  int64_t bytes = 64) {
    OperationNote note;
    note.text = std::move(text);
    note.sequence = sequence;
    note.bytes = bytes;
    return Start(rank, std::move(note));
  }

  std::shared_ptr<const OperationNote> Receive(int rank, int from) {
    OperationNote note;
    note.text = "receive 'Recv mb=3'";
    note.peer = from;
    return Start(rank, std::move(note));
  }

  void Wait(int rank, std::shared_ptr<const OperationNote> note) {
    waits_.push_back(std::make_unique<WaitRegistry::Wait>(
        *registries_[rank], std::move(note), WaitRegistry::kNoDeadline));
  }

  std::string Table(int silent_rank = -1) const {
    std::vector<std::optional<HangReport>> reports;
    for (int rank = 0; rank < kRanks; ++rank) {
      reports.emplace_back();
      if (rank == silent_rank) continue;
      // As the other ranks get it.
      reports.back() =
          DecodeHangReport(EncodeHangReport(registries_[rank]->Report()));
      EXPECT_TRUE(reports.back().has_value());
    }
    return HangTable(reports);
  }

  std::vector<std::unique_ptr<WaitRegistry>> registries_;

 private:
  std::shared_ptr<const OperationNote> Start(int rank, OperationNote note) {
    auto shared = std::make_shared<const OperationNote>(std::move(note));
    registries_[rank]->Started(shared);
    return shared;
  }

  std::vector<std::unique_ptr<WaitRegistry::Wait>> waits_;
};

TEST_F(HangTableTest, NamesBothOfTwoDifferentCollectives) {
  Wait(0, Collective(0, "all-reduce 'A'", 4));
  Wait(1, Collective(1, "all-gather 'B'", 4));
  Wait(2, Collective(2, "all-reduce 'A'", 4));
  const std::string table = Table();
  EXPECT_THAT(table,
              ContainsRegex("0 +0.0 s +all-reduce 'A' #4 +tp .0-2. +1\n"));
  EXPECT_THAT(table,
              ContainsRegex("1 +0.0 s +all-gather 'B' #4 +tp .0-2. +0, 2\n"));
  EXPECT_THAT(table,
              HasSubstr("verdict: ranks 0, 2 started all-reduce 'A', rank 1 "
                        "all-gather 'B', both as collective #4 of tp [0-2]: "
                        "different operations\n"));
}

// A small all-gather is done as soon as its rank has sent its part: the rank
// with the mistake may already wait in the next one.
TEST_F(HangTableTest, FindsAMismatchThatOneRankHasLeftBehind) {
  Wait(0, Collective(0, "all-reduce 'A'", 4));
  Wait(1, Collective(1, "all-reduce 'A'", 4));
  Collective(2, "broadcast 'B'", 4);
  Wait(2, Collective(2, "all-reduce 'A'", 5));
  EXPECT_THAT(Table(),
              HasSubstr("verdict: ranks 0, 1 started all-reduce 'A', "
                        "rank 2 broadcast 'B', both as collective #4"));
}

TEST_F(HangTableTest, TellsSizesThatDiffer) {
  Wait(0, Collective(0, "all-reduce 'A'", 4, 64));
  Wait(1, Collective(1, "all-reduce 'A'", 4, 128));
  EXPECT_THAT(Table(), HasSubstr("all-reduce 'A' of 64 bytes, rank 1 "
                                 "all-reduce 'A' of 128 bytes"));
}

// Everyone waits for rank 0 which waits for rank 2: that one is to blame.
TEST_F(HangTableTest, FollowsWaitsToTheRankThatComputes) {
  Wait(1, Collective(1, "all-reduce 'A'", 0));
  Collective(2, "all-reduce 'A'", 0);
  Wait(0, Receive(0, 2));
  registries_[2]->SetActivity("Forward mb=3");
  const std::string table = Table();
  EXPECT_THAT(table, ContainsRegex("1 +0.0 s +all-reduce 'A' #0 .* 0\n"));
  EXPECT_THAT(table, ContainsRegex("2 +- +computing in Forward mb=3 for 0.0 s; "
                                   "started last: all-reduce 'A' #0"));
  EXPECT_THAT(table, HasSubstr("verdict: rank 2 has not started its part of "
                               "receive 'Recv mb=3' on tp [0-2], for which "
                               "rank 0 waits: computing in Forward mb=3"));
}

TEST_F(HangTableTest, TellsACircle) {
  Wait(0, Receive(0, 1));
  Wait(1, Receive(1, 2));
  Wait(2, Receive(2, 0));
  EXPECT_THAT(Table(),
              HasSubstr("verdict: ranks wait for one another in a circle: "
                        "0 in receive 'Recv mb=3' -> "
                        "1 in receive 'Recv mb=3' -> "
                        "2 in receive 'Recv mb=3' -> 0\n"));
}

TEST_F(HangTableTest, BlamesARankThatDoesNotAnswer) {
  Wait(0, Collective(0, "all-reduce 'A'", 0));
  Wait(1, Collective(1, "all-reduce 'A'", 0));
  const std::string table = Table(/*silent_rank=*/2);
  EXPECT_THAT(table, ContainsRegex("0 +0.0 s +all-reduce 'A' #0 .* 2\n"));
  EXPECT_THAT(table, ContainsRegex("2 +- +no answer .dead or stuck outside "
                                   "communication.\n"));
  EXPECT_THAT(table, HasSubstr("verdict: rank 2 has not started"));
}

TEST_F(HangTableTest, BlamesARankThatHasFinished) {
  Wait(0, Collective(0, "all-reduce 'A'", 0));
  Collective(1, "all-reduce 'A'", 0);
  registries_[2]->SetFinished();
  EXPECT_THAT(Table(), ContainsRegex("verdict: rank 2 has not started its part "
                                     "of all-reduce 'A' #0 .*finished 0.0 s"));
}

// Two communicators of one name and ranks must not be taken for one another.
TEST_F(HangTableTest, TellsCommunicatorsOfOneNameApart) {
  registries_[1]->AddCommunicator("tp [0-2]", std::vector{0, 1, 2});
  OperationNote second;
  second.text = "all-gather 'B'";
  second.communicator = 1;
  second.sequence = 4;
  Wait(0, Collective(0, "all-reduce 'A'", 4));
  registries_[1]->Started(
      std::make_shared<const OperationNote>(std::move(second)));
  const std::string table = Table(/*silent_rank=*/2);
  EXPECT_THAT(table, ContainsRegex("0 +0.0 s +all-reduce 'A' #4 .* 1, 2\n"));
  EXPECT_THAT(table, testing::Not(HasSubstr("different")));
}

// A report comes over the network.
TEST_F(HangTableTest, OverlooksIndicesOutOfRange) {
  HangReport report;
  report.last = CommunicationOperation{.communicator = -7};
  report.waits.push_back(
      {.operation = {.communicator = 1 << 30, .sequence = 3}});
  HangReport other;
  other.rank = 99;
  other.waits.push_back({.operation = {.peer = 1 << 20}});
  EXPECT_THAT(
      HangTable(std::vector{std::optional(report), std::optional(other)}),
      HasSubstr("verdict: "));
}

TEST(HangReportTest, RefusesWhatIsNoReport) {
  EXPECT_FALSE(DecodeHangReport("").has_value());
  EXPECT_FALSE(DecodeHangReport("{\"rank\":1}").has_value());
  std::string message = EncodeHangReport(HangReport());
  EXPECT_TRUE(DecodeHangReport(message).has_value());
  message.resize(message.size() / 2);
  EXPECT_FALSE(DecodeHangReport(message).has_value());
}

TEST(WaitRegistryTest, AlarmsPastADeadlineOnly) {
  WaitRegistry registry(0);
  registry.AddCommunicator("pair", std::vector{0, 1});
  const auto note = std::make_shared<const OperationNote>(
      OperationNote{.text = "barrier 'end'", .sequence = 0});
  {
    const WaitRegistry::Wait patient(registry, note, std::chrono::hours(1));
    const WaitRegistry::Wait forever(registry, note, WaitRegistry::kNoDeadline);
    EXPECT_EQ(registry.Alarm(), std::nullopt);
    const WaitRegistry::Wait late(registry, note, std::chrono::seconds(0));
    EXPECT_EQ(registry.Alarm(),
              "deadline of 0.0 s passed waiting for barrier 'end' on 'pair'");
  }
  EXPECT_EQ(registry.Alarm(), std::nullopt);
  registry.SetFailure("rank 1 sent 8 bytes, expected 4");
  EXPECT_EQ(registry.Alarm(), "rank 1 sent 8 bytes, expected 4");
}

}  // namespace
}  // namespace trireme
