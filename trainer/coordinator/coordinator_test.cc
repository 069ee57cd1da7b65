// What a launch knows of its ranks and they of it, over the service and
// without.

#include <sys/stat.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <thread>

#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"
#include "trainer/coordinator/coordinator_client.h"
#include "trainer/coordinator/coordinator_server.h"
#include "trainer/coordinator/job_watch.h"
#include "trainer/coordinator/launch_record.h"
#include "trainer/coordinator/rank_reporter.h"
#include "trainer/coordinator/status_text.h"
#include "trainer/coordinator/tls.h"

namespace trireme {
namespace {

using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

RankReport ReportOf(int rank, RankReport::State state) {
  RankReport report;
  report.set_rank(rank);
  report.set_world_size(4);
  report.set_host("a");
  report.set_process(100 + rank);
  report.set_state(state);
  return report;
}

TEST(JobWatchTest, KnowsWhoIsSilentAndWhenNobodySpeaks) {
  const JobWatch::Clock::time_point start{};
  JobWatch watch("run", start);
  EXPECT_EQ(watch.AllSilentFor(start + seconds(60)), std::nullopt);
  for (int rank : {0, 1, 2}) {
    ASSERT_TRUE(watch.Report(ReportOf(rank, RankReport::TRAINING), start).ok());
  }
  ASSERT_TRUE(
      watch.Report(ReportOf(0, RankReport::TRAINING), start + seconds(5)).ok());
  ASSERT_TRUE(
      watch.Report(ReportOf(1, RankReport::ENDED), start + seconds(1)).ok());
  const auto silent = watch.NewlySilent(start + seconds(6), seconds(3));
  ASSERT_THAT(silent, SizeIs(1));
  EXPECT_EQ(silent[0].rank(), 2);
  EXPECT_THAT(watch.NewlySilent(start + seconds(6), seconds(3)), IsEmpty())
      << "told once";
  EXPECT_EQ(watch.AllSilentFor(start + seconds(6)), seconds(1));
  ASSERT_THAT(watch.SilentFor(start + seconds(6), seconds(3)), SizeIs(1));
  // It speaks again, and may fall silent again.
  ASSERT_TRUE(
      watch.Report(ReportOf(2, RankReport::TRAINING), start + seconds(7)).ok());
  EXPECT_THAT(watch.NewlySilent(start + seconds(11), seconds(3)), SizeIs(2));
}

// As after Ctrl-Z and fg: a launch that was stopped gives nobody up for what it
// did not hear.
TEST(JobWatchTest, SilenceThatNobodyCouldHaveBrokenDoesNotCount) {
  const JobWatch::Clock::time_point start{};
  JobWatch watch("run", start);
  ASSERT_TRUE(watch.Report(ReportOf(0, RankReport::TRAINING), start).ok());
  watch.Excuse(start + seconds(100));
  EXPECT_THAT(watch.SilentFor(start + seconds(101), seconds(3)), IsEmpty());
  EXPECT_THAT(watch.SilentFor(start + seconds(104), seconds(3)), SizeIs(1));
}

TEST(JobWatchTest, KnowsWhoFailedSinceTheRanksBegan) {
  JobWatch watch("run", {});
  ASSERT_TRUE(watch.Report(ReportOf(0, RankReport::TRAINING), {}).ok());
  ASSERT_TRUE(watch.Report(ReportOf(2, RankReport::ENDED), {}).ok());
  EXPECT_FALSE(watch.AnyFailedForGood());
  ASSERT_TRUE(watch.Report(ReportOf(1, RankReport::FAILED), {}).ok());
  EXPECT_TRUE(watch.AnyFailedForGood());
  EXPECT_FALSE(watch.AllEnded());
  watch.Begin(1);
  EXPECT_FALSE(watch.AnyFailedForGood()) << "nothing is known of the new ones";
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_FALSE(watch.AllEnded());
    RankReport report = ReportOf(rank, RankReport::ENDED);
    report.set_start(1);
    ASSERT_TRUE(watch.Report(report, {}).ok());
  }
  EXPECT_TRUE(watch.AllEnded());
}

// A disk that fails while a run starts anew must not end it.
TEST(JobWatchTest, AFailureThatMayPassIsOneOnlyOnceAStepIsDone) {
  JobWatch watch("run", {});
  RankReport failed = ReportOf(1, RankReport::FAILED);
  failed.set_may_pass(true);
  ASSERT_TRUE(watch.Report(failed, {}).ok());
  EXPECT_FALSE(watch.AnyFailedForGood());
  RankReport training = ReportOf(0, RankReport::TRAINING);
  training.set_step(3);
  ASSERT_TRUE(watch.Report(training, {}).ok());
  EXPECT_TRUE(watch.AnyFailedForGood());
}

// The last words of a rank that was lost must not count for its successor.
TEST(JobWatchTest, WhoWasStartedBeforeIsNotHeard) {
  JobWatch watch("run", {});
  watch.Begin(2);
  RankReport report = ReportOf(0, RankReport::FAILED);
  report.set_start(1);
  report.set_step(7);
  EXPECT_TRUE(absl::IsFailedPrecondition(watch.Report(report, {}).status()));
  EXPECT_FALSE(watch.AnyFailedForGood() || watch.Training());
  report.set_start(2);
  EXPECT_TRUE(watch.Report(report, {}).ok());
  EXPECT_TRUE(watch.AnyFailedForGood() && watch.Training());
}

TEST(JobWatchTest, StepsThatAreDoneAgainAreListedOnce) {
  JobWatch watch("run", {});
  RankReport report = ReportOf(0, RankReport::TRAINING);
  for (const int step : {1, 2, 3, 2, 3, 4}) {
    report.mutable_figures()->set_step(step);
    ASSERT_TRUE(watch.Report(report, {}).ok());
  }
  EXPECT_EQ(watch.Status({}).steps_size(), 4);
  EXPECT_EQ(watch.last_step(), 4);
}

TEST(JobWatchTest, ARankOutsideOfItsWorldIsRefused) {
  JobWatch watch("run", {});
  for (const int rank : {-1, 4}) {
    EXPECT_FALSE(watch.Report(ReportOf(rank, RankReport::TRAINING), {}).ok());
  }
  EXPECT_EQ(watch.Status({}).ranks_size(), 0);
}

class CoordinatorTest : public ::testing::Test {
 protected:
  CoordinatorTest()
      : watch_("run", JobWatch::Clock::now()),
        server_(CoordinatorServer::Start(watch_, "127.0.0.1:0").value()) {}

  RankReporter::Options OfRank(int rank, int world_size) const {
    return {.coordinator = {.address = server_->address()},
            .rank = rank,
            .world_size = world_size};
  }

  JobWatch watch_;
  std::unique_ptr<CoordinatorServer> server_;
};

TEST_F(CoordinatorTest, OrdersReachRankZeroOnce) {
  RankReporter first(OfRank(0, 2));
  RankReporter second(OfRank(1, 2));
  CoordinatorClient person(server_->address());
  ASSERT_TRUE(person.GiveOrder(Order::SAVE).ok());
  ASSERT_TRUE(person.GiveOrder(Order::STOP).ok());
  bool saved = false, stopped = false;
  for (int i = 0; i < 100 && !(saved && stopped); ++i) {
    const Orders orders = first.Take();
    saved |= orders.save;
    stopped |= orders.stop;
    EXPECT_FALSE(second.Take().stop);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  EXPECT_TRUE(saved && stopped);
  EXPECT_FALSE(first.Take().stop);
}

TEST_F(CoordinatorTest, AStepIsSeenByWhoAsks) {
  RankReporter reporter(OfRank(0, 1));
  StepMetrics metrics;
  metrics.step = 7;
  metrics.loss = 0.5;
  metrics.compute_s = metrics.own_compute_s = 0.9;
  metrics.exposed_s = {{"tp", 0.1}};
  metrics.step_s = 1;
  reporter.Note(metrics, 10);
  reporter.End(absl::OkStatus());
  const JobStatus status =
      CoordinatorClient(server_->address()).GetStatus().value();
  ASSERT_EQ(status.ranks_size(), 1);
  EXPECT_EQ(status.ranks(0).report().state(), RankReport::ENDED);
  ASSERT_GE(status.steps_size(), 1);
  EXPECT_THAT(StatusText(status),
              AllOf(HasSubstr("step 7 of 10 (70 %), 0:03 left"),
                    HasSubstr("compute 90%, tp 10%")));
}

// Waits, for long, until it holds.
template <typename Condition>
bool Eventually(Condition condition) {
  for (int i = 0; i < 600; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return false;
}

// A rank on a host whose link is gone ends, however long the job's deadlines.
TEST_F(CoordinatorTest, ARankLearnsThatItIsCutOff) {
  std::atomic<int> told = 0;
  RankReporter::Options options = OfRank(0, 1);
  options.given_up = [&] { ++told; };
  options.hears_far = true;
  options.timeouts.given_up = seconds(1);
  RankReporter reporter(options);
  std::this_thread::sleep_for(seconds(2));
  EXPECT_EQ(told, 0) << "somebody answers";
  server_.reset();
  EXPECT_TRUE(Eventually([&] { return told > 0; }));
  EXPECT_EQ(told, 1);
}

// One whose job goes on without it must not keep the run's folder.
TEST_F(CoordinatorTest, ARankLearnsThatOthersTookItsPlace) {
  std::atomic<int> told = 0;
  RankReporter::Options options = OfRank(1, 2);
  options.given_up = [&] { ++told; };
  RankReporter reporter(options);
  EXPECT_TRUE(Eventually([&] { return watch_.Status({}).ranks_size() > 0; }));
  EXPECT_EQ(told, 0);
  watch_.Begin(1);
  EXPECT_TRUE(Eventually([&] { return told > 0; }));
}

// Losing the launch loses no work: another one hears the ranks and orders, or
// the run saves and ends.
TEST_F(CoordinatorTest, ALaunchIsReplacedOrTheRunIsOrphaned) {
  ASSERT_TRUE(
      CoordinatorClient(server_->address()).GiveOrder(Order::SAVE).ok());
  RankReporter::Options options = OfRank(0, 1);
  options.timeouts.orphaned = seconds(5);
  RankReporter reporter(options);
  EXPECT_TRUE(Eventually([&] { return reporter.Take().save; }));
  const CoordinatorAddress address = server_->address();
  server_.reset();
  JobWatch successor("run", JobWatch::Clock::now());
  server_ = CoordinatorServer::Start(successor, address.endpoint, address.token)
                .value();
  EXPECT_FALSE(CoordinatorServer::Start(successor, address.endpoint).ok())
      << "two at one address";
  EXPECT_TRUE(
      Eventually([&] { return successor.Status({}).ranks_size() > 0; }));
  ASSERT_TRUE(CoordinatorClient(address).GiveOrder(Order::SAVE).ok());
  bool stopped = false;
  EXPECT_TRUE(Eventually([&] {
    const Orders orders = reporter.Take();
    stopped |= orders.stop;
    return orders.save;
  }));
  EXPECT_FALSE(stopped);
  server_.reset();
  EXPECT_TRUE(Eventually([&] { return reporter.Take().stop; }));
}

TEST_F(CoordinatorTest, WithoutTheTokenNothingIsToldOrDone) {
  CoordinatorAddress wrong = server_->address();
  wrong.token.back() = wrong.token.back() == '0' ? '1' : '0';
  for (const std::string& token : {wrong.token, std::string()}) {
    CoordinatorClient stranger({wrong.endpoint, token});
    EXPECT_TRUE(absl::IsUnauthenticated(stranger.GetStatus().status()));
    EXPECT_TRUE(absl::IsUnauthenticated(stranger.GiveOrder(Order::STOP)));
    EXPECT_TRUE(absl::IsUnauthenticated(
        stranger.Report(ReportOf(0, RankReport::FAILED)).status()));
  }
  const JobStatus status = watch_.Status(JobWatch::Clock::now());
  EXPECT_EQ(status.orders().stops(), 0);
  EXPECT_EQ(status.ranks_size(), 0);
}

// A listener on the way hears neither the token nor anything else.
TEST(TlsTest, OnlyWhoHasTheCertificateIsHeard) {
  JobWatch watch("run", JobWatch::Clock::now());
  const TlsIdentity identity = NewTlsIdentity().value();
  const auto server =
      CoordinatorServer::Start(watch, "127.0.0.1:0", std::nullopt, identity)
          .value();
  const CoordinatorAddress address = server->address();
  EXPECT_EQ(address.certificate, identity.certificate);
  EXPECT_TRUE(CoordinatorClient(address).GetStatus().ok());

  CoordinatorAddress plain = address;
  plain.certificate.clear();
  EXPECT_FALSE(CoordinatorClient(plain).GetStatus().ok());
  CoordinatorAddress another = address;
  another.certificate = NewTlsIdentity().value().certificate;
  EXPECT_FALSE(CoordinatorClient(another).GetStatus().ok());
  CoordinatorAddress stranger = address;
  stranger.token = "guess";
  EXPECT_TRUE(absl::IsUnauthenticated(
      CoordinatorClient(stranger).GetStatus().status()));

  // As its ranks get it.
  SetInEnvironment(address, seconds(7));
  setenv(kStartVariable, "1", /*overwrite=*/1);
  EXPECT_EQ(CoordinatorInEnvironment()->lost, seconds(7));
  EXPECT_EQ(CoordinatorInEnvironment()->address.certificate,
            identity.certificate);
  SetInEnvironment(plain, seconds(7));
  EXPECT_EQ(CoordinatorInEnvironment()->address.certificate, "");
}

TEST(LaunchRecordTest, OnlyItsOwnerReadsTheToken) {
  const std::string run = testing::TempDir() + "/coordinator_test";
  std::filesystem::remove_all(run);
  EXPECT_THAT(MessageOf(ReadLaunchRecord(run).status()),
              HasSubstr("no such folder"));
  const LaunchRecord record{.address = {"127.0.0.1:40123", "secret", "public"},
                            .private_key = "private",
                            .start = 3,
                            .host = "a",
                            .mpirun = 17,
                            .mpirun_ticks = 1234};
  ASSERT_TRUE(WriteLaunchRecord(record, run).ok());
  struct stat info {};
  ASSERT_EQ(stat((run + "/coordinator.json").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  const LaunchRecord read = ReadLaunchRecord(run).value();
  EXPECT_EQ(read.address.endpoint, "127.0.0.1:40123");
  EXPECT_EQ(read.address.certificate, "public");
  EXPECT_EQ(read.private_key, "private");
  EXPECT_EQ(read.start, 3);
  EXPECT_EQ(read.mpirun, 17);
  EXPECT_EQ(read.mpirun_ticks, 1234);
  RemoveLaunchRecord({"127.0.0.1:1", "another"}, run);
  EXPECT_TRUE(ReadLaunchRecord(run).ok()) << "another launch removed it";
  RemoveLaunchRecord(record.address, run);
  EXPECT_THAT(MessageOf(ReadLaunchRecord(run).status()),
              HasSubstr("expected a run's folder"));
  std::ofstream(run + "/metrics.jsonl") << "";
  EXPECT_THAT(MessageOf(ReadLaunchRecord(run).status()),
              HasSubstr("no launch of it is running"));
}

TEST(CoordinatorServerTest, AnAddressThatIsNoneIsAnError) {
  JobWatch watch("run", {});
  for (const std::string listen :
       {"nowhere.invalid:1", "0.0.0.0:0", "[::]:0", "*:0"}) {
    EXPECT_THAT(MessageOf(CoordinatorServer::Start(watch, listen).status()),
                HasSubstr("--listen: found '" + listen + "'"));
  }
}

TEST(CoordinatorServerTest, ListensAtWhatANameStandsForAndAlone) {
  JobWatch watch("run", {});
  const auto server = CoordinatorServer::Start(watch, "localhost:0").value();
  const std::string& endpoint = server->address().endpoint;
  EXPECT_THAT(endpoint, StartsWith("localhost:"));
  EXPECT_TRUE(CoordinatorClient(server->address()).GetStatus().ok());
  EXPECT_THAT(MessageOf(CoordinatorServer::Start(watch, endpoint).status()),
              HasSubstr("--listen: found '" + endpoint + "'"));
}

TEST(StatusTextTest, FitsEightyColumnsAndNamesWhoIsSlowOrSilent) {
  JobStatus status;
  status.set_folder("runs/fashion_mnist");
  status.set_age_s(3723);
  for (int rank = 0; rank < 8; ++rank) {
    RankStatus& entry = *status.add_ranks();
    *entry.mutable_report() = ReportOf(rank, RankReport::TRAINING);
    entry.mutable_report()->set_world_size(8);
    entry.mutable_report()->set_steps(1000);
    entry.mutable_report()->set_own_compute_s(rank == 3 ? 2.0 : 1.0);
    entry.set_silent_s(rank == 5 ? 12 : 0.1);
  }
  for (int step = 1; step <= 200; ++step) {
    StepFigures& figures = *status.add_steps();
    figures.set_step(step);
    figures.set_loss(1.0 / step);
    figures.set_step_s(1.25);
    figures.set_model_flops_per_s(3.2e12);
    (*figures.mutable_auxiliary_losses())["balance_loss"] = 1.25;
    figures.set_compute_s(1);
    for (const char* cause :
         {"data", "tp", "cp", "bubble", "pp", "dp", "optimizer"}) {
      (*figures.mutable_exposed_s())[cause] = 0.1;
    }
  }
  // It hides none of the others.
  status.mutable_steps(99)->set_loss(std::numeric_limits<double>::infinity());
  StepFigures& last = *status.mutable_steps(199);
  last.set_left_out_steps(2);
  last.set_roll_backs(1);
  last.set_trouble(
      "step 190: the loss is nan; expected a number; the first that is not "
      "finite: the output of block 3, in forward of microbatch 1 on rank 2");
  last.add_stragglers(
      "the link of rank 1 (b) and rank 2 (c) moves 12 MB/s, the median of 5 "
      "other links between hosts 900 MB/s");
  ExpertFigures& experts = *last.mutable_experts();
  experts.set_layer("blocks.10.moe");
  experts.set_expert(127);
  experts.set_load(3.25);
  experts.set_dropped_share(0.0123);
  // Of devices that are not known there is no MFU.
  EXPECT_THAT(StatusText(status), Not(HasSubstr("MFU")));
  for (int rank = 0; rank < status.ranks_size(); ++rank) {
    // Unlike ones add up.
    status.mutable_ranks(rank)->mutable_report()->set_peak_flops(
        rank % 2 == 0 ? 1e12 : 3e12);
  }
  EXPECT_THAT(StatusText(status), HasSubstr("MFU 20.0 %"));
  const std::string text = StatusText(status, /*peak_flops=*/1e12);
  EXPECT_THAT(text, HasSubstr("experts blocks.10.moe: expert 127 has 3.25 "
                              "times the mean's routes\n        1.2 % of all "
                              "routes dropped\n"));
  EXPECT_THAT(text, AllOf(HasSubstr("        █"), HasSubstr("▁\n")));
  EXPECT_THAT(text, HasSubstr("        the link of rank 1 (b) and rank 2 (c)"));
  EXPECT_THAT(text, AllOf(HasSubstr("health  2 steps left out, 1 times back"),
                          HasSubstr("step 190: the loss is nan")));
  EXPECT_THAT(text, AllOf(HasSubstr("3.2 TFLOP/s, MFU 40.0 %"),
                          HasSubstr("of it   balance_loss 1.25")));
  EXPECT_THAT(text,
              AllOf(HasSubstr("launched 1:02:03 ago"),
                    HasSubstr("step 200 of 1000 (20 %), 16:40 left"),
                    HasSubstr("rank 3 (a, process 103)"),
                    HasSubstr("computes 2 s a step, the median 1 s"),
                    HasSubstr("rank 5 (a, process 105)"),
                    HasSubstr("silent for 12 s"), Not(HasSubstr("rank 4"))));
  for (const auto line : absl::StrSplit(text, '\n')) {
    int columns = 0;
    for (const char byte : line) columns += (byte & 0xC0) != 0x80;
    EXPECT_LE(columns, 80) << std::string(line);
  }
}

}  // namespace
}  // namespace trireme
