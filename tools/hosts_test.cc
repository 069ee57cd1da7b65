// Which machines a launch goes on with after some were lost.

#include "tools/hosts.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/core/file.h"
#include "runtime/core/processors.h"
#include "runtime/core/status.h"
#include "runtime/core/timeouts.h"
#include "tools/host_questions.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::vector<Host> Hosts(const std::string& text) {
  return ParseHosts("hosts", text).value();
}

TEST(HostsTest, ASpareTakesThePlaceOfALostHostAndItsRanks) {
  const Machines left = WithoutLost(
      {Hosts("a:4,b:4,c:2"), Hosts("small:2,large:8,last:4")}, {"b"});
  EXPECT_EQ(HostsText(left.hosts), "a:4,large:4,c:2");
  EXPECT_EQ(HostsText(left.spares), "small:2,last:4");
}

TEST(HostsTest, WithoutASpareThePlaceIsGone) {
  const Machines left =
      WithoutLost({Hosts("a:4,b:4,c:2"), Hosts("d:8")}, {"d", "a", "c"});
  EXPECT_EQ(HostsText(left.hosts), "b:4");
  EXPECT_EQ(HostsText(left.spares), "d:8");
}

// It is asked once more when nothing else is left.
TEST(HostsTest, ASpareThatDoesNotAnswerIsTheLast) {
  const Machines left = WithoutLost(
      {Hosts("a:4,b:4"), Hosts("down:8,up:4,other:4")}, {"b", "down"});
  EXPECT_EQ(HostsText(left.hosts), "a:4,up:4");
  EXPECT_EQ(HostsText(left.spares), "other:4,down:8");
}

TEST(HostsTest, RanksAreNumberedAsHostsAreListed) {
  const std::vector<Host> hosts = Hosts("b:2,a:1,c:3");
  using Names = std::set<std::string>;
  EXPECT_EQ(HostsOfRanks(hosts, {}), Names());
  EXPECT_EQ(HostsOfRanks(hosts, {0}), Names{"b"});
  EXPECT_EQ(HostsOfRanks(hosts, {1, 2}), (Names{"a", "b"}));
  EXPECT_EQ(HostsOfRanks(hosts, {3, 5}), Names{"c"});
  EXPECT_EQ(HostsOfRanks(hosts, {6}), Names());
}

TEST(HostsTest, ReadsTheHostFilesThatOthersWrite) {
  const std::string path = testing::TempDir() + "/hosts";
  ASSERT_TRUE(
      WriteFileAtomically(path, "# mine\na slots=4\n\nb.example\t# one\n")
          .ok());
  EXPECT_EQ(HostsText(*ReadHostFile(path)), "a:4,b.example:1");
  ASSERT_TRUE(WriteFileAtomically(path, "a slots=4\n-o slots=1\n").ok());
  EXPECT_THAT(MessageOf(ReadHostFile(path).status()),
              HasSubstr("hosts:2: found '-o slots=1'"));
  ASSERT_TRUE(WriteFileAtomically(path, "\n").ok());
  EXPECT_THAT(MessageOf(ReadHostFile(path).status()),
              HasSubstr("found no host"));
}

TEST(HostsTest, AHostFileSaysWhatLiesElsewhere) {
  const std::string path = testing::TempDir() + "/hosts_with_paths";
  const auto read = [&](const std::string& text) {
    EXPECT_TRUE(WriteFileAtomically(path, text).ok());
    return ReadHostFile(path);
  };
  const auto hosts =
      read("a slots=4\nb paths=/data:/scratch,/runs:/mnt/runs slots=2\n");
  ASSERT_TRUE(hosts.ok()) << hosts.status();
  EXPECT_EQ(HostsText(*hosts), "a:4,b:2");
  EXPECT_EQ((*hosts)[0].paths, "");
  EXPECT_EQ((*hosts)[1].paths, "/data:/scratch,/runs:/mnt/runs");
  // It is the machine that has them there, not its place among the ranks.
  const Machines left = WithoutLost({*hosts, Hosts("c:2")}, {"b"});
  EXPECT_EQ(HostsText(left.hosts), "a:4,c:2");
  EXPECT_EQ(left.hosts[1].paths, "");
  const auto spares = read("d slots=4 paths=/data:/disk\n");
  ASSERT_TRUE(spares.ok()) << spares.status();
  const Host placed = WithoutLost({*hosts, *spares}, {"b"}).hosts[1];
  EXPECT_EQ(placed, (Host{"d", 2, "/data:/disk"}));
  EXPECT_EQ(WithoutLost({*hosts, {}}, {"a"}).hosts[0].paths, (*hosts)[1].paths);
  EXPECT_THAT(MessageOf(read("a\nb slots=2 paths=/data\n").status()),
              HasSubstr("hosts_with_paths:2: paths: found '/data', expected "
                        "FROM:TO"));
  for (const char* line : {"a paths=/d:/e paths=/f:/g", "a slots=2 slots=2",
                           "a slots=2 path=/d:/e"}) {
    EXPECT_THAT(MessageOf(read(line).status()),
                HasSubstr("expected NAME slots=RANKS paths=FROM:TO"))
        << line;
  }
}

// A script in the place of mpirun, which runs in the folder.
class FakeMpirun {
 public:
  explicit FakeMpirun(const std::string& script)
      : folder_(testing::TempDir() + "/probes"), path_(std::getenv("PATH")) {
    std::filesystem::remove_all(folder_);
    EXPECT_TRUE(MakeDirectories(folder_).ok());
    EXPECT_TRUE(WriteFileAtomically(folder_ + "/mpirun",
                                    "#!/bin/sh\ncd " + folder_ + "\n" + script)
                    .ok());
    std::filesystem::permissions(folder_ + "/mpirun",
                                 std::filesystem::perms::owner_all);
    setenv("PATH", (folder_ + ":" + path_).c_str(), /*overwrite=*/1);
  }
  ~FakeMpirun() { setenv("PATH", path_.c_str(), /*overwrite=*/1); }
  FakeMpirun(const FakeMpirun&) = delete;
  FakeMpirun& operator=(const FakeMpirun&) = delete;

  const std::string& folder() const { return folder_; }

 private:
  const std::string folder_, path_;
};

// Ctrl-C at a launch whose hosts are gone does not take minutes.
TEST(HostsTest, WhoGivesUpWaitsForNoHost) {
  const FakeMpirun mpirun("exec sleep 600\n");
  const auto begin = std::chrono::steady_clock::now();
  int looks = 0;
  const auto unreachable =
      FindUnreachable(Hosts("a:1,b:1,c:1"), std::chrono::seconds(500),
                      [&] { return ++looks > 3; });
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60));
  EXPECT_THAT(unreachable, SizeIs(3));
}

// A launch that asks hundreds at once is too busy to hear them in time.
TEST(HostsTest, ManyHostsAreAskedAFewAtATime) {
  // Each keeps a file while it runs; "away" says what ssh would.
  const FakeMpirun mpirun(
      "mkdir -p running\ntouch running/$$\nls running | wc -l >> counts\n"
      "sleep 0.1\nrm running/$$\n"
      "case $4 in away*) echo no route to it; exit 1;; esac\n");
  const int at_once = 4 * AvailableProcessors();
  std::vector<Host> hosts = Hosts("away:1");
  for (int i = 0; i < 2 * at_once; ++i) {
    hosts.push_back({.name = fmt::format("host{}", i), .ranks = 1});
  }
  const auto unreachable = FindUnreachable(hosts, std::chrono::seconds(60));
  ASSERT_THAT(unreachable, SizeIs(1));
  EXPECT_EQ(unreachable[0].first, "away");
  EXPECT_EQ(unreachable[0].second, "no route to it");
  std::ifstream counts(mpirun.folder() + "/counts");
  int most = 0;
  for (int count = 0; counts >> count;) most = std::max(most, count);
  EXPECT_GE(most, 1);
  EXPECT_LE(most, at_once);
}

// One that says something, as ssh's banner, and is asked beside one that hangs.
TEST(HostsTest, WhoAnsweredInTimeIsReachableHoweverLateItIsHeard) {
  const std::string folder = testing::TempDir() + "/talks";
  std::filesystem::remove_all(folder);
  ASSERT_TRUE(MakeDirectories(folder).ok());
  ASSERT_TRUE(WriteFileAtomically(folder + "/mpirun",
                                  "#!/bin/sh\n"
                                  "case $4 in away*) exec sleep 600;; esac\n"
                                  "yes 'Authorised use only.' | head -n 100\n")
                  .ok());
  std::filesystem::permissions(folder + "/mpirun",
                               std::filesystem::perms::owner_all);
  const std::string path = std::getenv("PATH");
  setenv("PATH", (folder + ":" + path).c_str(), /*overwrite=*/1);
  const auto unreachable =
      FindUnreachable(Hosts("away:1,talks:1"), std::chrono::seconds(3));
  setenv("PATH", path.c_str(), /*overwrite=*/1);
  ASSERT_THAT(unreachable, SizeIs(1));
  EXPECT_EQ(unreachable[0].first, "away");
  EXPECT_THAT(unreachable[0].second, HasSubstr("no answer within 3 s"));
}

constexpr std::chrono::seconds kPatience(60);
void SayNothing(const std::string& /*text*/) {}

// Ranks that cannot be started anywhere would be waited for, for minutes.
TEST(HostsTest, AMisspeltNameIsNamedAtOnce) {
  const FakeMpirun mpirun(
      "case $4 in mis*) echo Could not resolve hostname; exit 255;; esac\n");
  const auto start_with = [](const std::string& hosts) {
    return ReachableMachines({Hosts(hosts), {}}, kPatience, SayNothing)
        .status();
  };
  // An alias may be one that only ssh knows.
  EXPECT_TRUE(start_with("127.0.0.1:1,me@127.0.0.2:1,alias.invalid:1").ok());
  const absl::Status status =
      start_with("127.0.0.1:1,alias.invalid:1,misspelt.invalid:1");
  EXPECT_TRUE(absl::IsNotFound(status));
  EXPECT_THAT(MessageOf(status),
              HasSubstr("host misspelt.invalid: found no machine of that name "
                        "(Could not resolve hostname)"));
}

// ssh waits for one that is down for two minutes, and mpirun for ssh.
TEST(HostsTest, AHostThatIsDownIsNamedBeforeTheFirstStart) {
  const FakeMpirun mpirun(
      "case $4 in *.2:*|*.3:*) echo No route to host; exit 255;; esac\n");
  std::vector<std::string> said;
  const auto left = ReachableMachines(
      {Hosts("127.0.0.1:4,127.0.0.2:4"),
       Hosts("127.0.0.3:4,127.0.0.4:4,127.0.0.5:4")},
      kPatience, [&](const std::string& text) { said.push_back(text); });
  ASSERT_TRUE(left.ok());
  EXPECT_EQ(HostsText(left->hosts), "127.0.0.1:4,127.0.0.4:4");
  EXPECT_EQ(HostsText(left->spares), "127.0.0.5:4,127.0.0.3:4");
  ASSERT_THAT(said, SizeIs(3));
  EXPECT_EQ(said[0], "host 127.0.0.2 cannot be reached: No route to host");
  EXPECT_EQ(said[2], "goes on with 127.0.0.1:4,127.0.0.4:4");
  // Too small a spare.
  const auto none = ReachableMachines(
      {Hosts("127.0.0.1:4,127.0.0.2:4"), Hosts("127.0.0.4:2")}, kPatience,
      SayNothing);
  EXPECT_TRUE(absl::IsUnavailable(none.status()));
  EXPECT_THAT(MessageOf(none.status()),
              HasSubstr("--hosts: found 127.0.0.2 out of reach"));
}

// Its name is one of ssh's own, of a machine that is down.
TEST(HostsTest, ASpareTakesThePlaceOfAnAliasThatIsDown) {
  const FakeMpirun mpirun(
      "case $4 in down*) echo ssh: connect to host 10.0.0.2 port 22: No route "
      "to host; exit 255;; esac\n");
  const auto left = ReachableMachines(
      {Hosts("127.0.0.1:4,down.invalid:4"), Hosts("127.0.0.3:4")}, kPatience,
      SayNothing);
  ASSERT_TRUE(left.ok()) << MessageOf(left.status());
  EXPECT_EQ(HostsText(left->hosts), "127.0.0.1:4,127.0.0.3:4");
}

// Its ranks were waited for already: a new start need not wait as long again.
TEST(HostsTest, AHostThatDidNotAnswerBeforeIsNotWaitedForAsOthersAre) {
  const FakeMpirun mpirun("case $4 in *gone*) exec sleep 600;; esac\n");
  const auto begin = std::chrono::steady_clock::now();
  std::vector<std::string> said;
  const Machines left = MachinesLeft(
      {Hosts("me@gone:1,here:1"), {}}, {"me@gone"},
      {.spared = std::chrono::seconds(1),
       .unanswered = std::chrono::seconds(2),
       .others = std::chrono::seconds(500)},
      [] { return false; },
      [&](const std::string& text) { said.push_back(text); });
  EXPECT_LT(std::chrono::steady_clock::now() - begin,
            std::chrono::seconds(100));
  EXPECT_EQ(HostsText(left.hosts), "here:1");
  ASSERT_THAT(said, SizeIs(1));
  EXPECT_EQ(said[0], "host me@gone cannot be reached: no answer within 2 s");
}

// Neither the lost host nor a spare that is down keeps the job waiting when
// another spare is there.
TEST(HostsTest, ASpareThatAnswersIsTaken) {
  const FakeMpirun mpirun("case $4 in gone*|down*) exec sleep 600;; esac\n");
  const auto begin = std::chrono::steady_clock::now();
  std::vector<std::string> said;
  const Machines left = MachinesLeft(
      {Hosts("here:1,gone:1"), Hosts("down:1,spare:1")}, {"gone"},
      {.spared = std::chrono::seconds(1),
       .unanswered = std::chrono::seconds(500),
       .others = std::chrono::seconds(500)},
      [] { return false; },
      [&](const std::string& text) { said.push_back(text); });
  EXPECT_LT(std::chrono::steady_clock::now() - begin,
            std::chrono::seconds(100));
  EXPECT_EQ(HostsText(left.hosts), "here:1,spare:1");
  EXPECT_EQ(HostsText(left.spares), "down:1");
  ASSERT_THAT(said, SizeIs(1));
  EXPECT_EQ(said[0], "host gone cannot be reached: no answer yet");
}

// A rank that hangs, or a link that is there again: all stays as it was, and no
// spare is waited for.
TEST(HostsTest, WhereAllHostsAnswerNothingChanges) {
  const FakeMpirun mpirun("case $4 in spare*) exec sleep 600;; esac\n");
  const Machines machines = {Hosts("here:1,back:1"), Hosts("spare:1,other:1")};
  const Machines left = MachinesLeft(
      machines, {"back"},
      {.spared = std::chrono::seconds(400),
       .unanswered = std::chrono::seconds(500),
       .others = std::chrono::seconds(500)},
      [] { return false; }, SayNothing);
  EXPECT_EQ(left.hosts, machines.hosts);
  EXPECT_EQ(left.spares, machines.spares);
}

// It is known when silence has lasted for too long who is gone, and who only
// hangs.
TEST(HostsTest, SilentHostsAreAskedWhileTheyAreSilent) {
  const FakeMpirun mpirun(
      "echo x >> asked_$4\ncase $4 in gone*) exec sleep 600;; esac\n");
  const auto asked = [&](const std::string& host) {
    std::ifstream file(mpirun.folder() + "/asked_" + host + ":1");
    return std::count(std::istreambuf_iterator<char>(file), {}, 'x');
  };
  Timeouts timeouts;
  timeouts.named = std::chrono::seconds(2);
  SilentHosts silent(timeouts);
  const auto begin = HostQuestions::Clock::now();
  auto now = begin;
  const auto look = [&](const std::set<std::string>& hosts) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    now = HostQuestions::Clock::now();
    silent.Look(hosts, now);
  };
  look({"gone", "hangs"});
  EXPECT_THAT(silent.Unanswered(), IsEmpty());
  const std::set<std::string> gone = {"gone"};
  while ((asked("gone") < 2 || silent.Unanswered() != gone) &&
         now - begin < std::chrono::seconds(100)) {
    look({"gone", "hangs"});
  }
  EXPECT_EQ(silent.Unanswered(), gone);
  EXPECT_GE(asked("hangs"), 1);
  // Its ranks are heard again.
  look({"hangs"});
  EXPECT_FALSE(silent.Unanswered().contains("gone"));
}

// Ranks train meanwhile on the machine that asks: it starts no mpirun after
// another where each fails at once, as for a host that refuses connections.
TEST(HostsTest, AHostThatRefusesIsNotAskedWithoutAPause) {
  const FakeMpirun mpirun("echo x >> asked\nexit 1\n");
  Timeouts timeouts;
  timeouts.named = std::chrono::seconds(600);
  timeouts.reach = std::chrono::milliseconds(500);
  SilentHosts silent(timeouts);
  const auto begin = HostQuestions::Clock::now();
  while (HostQuestions::Clock::now() - begin < std::chrono::seconds(1)) {
    silent.Look({"refuses"}, HostQuestions::Clock::now());
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_EQ(silent.Unanswered(), std::set<std::string>{"refuses"});
  std::ifstream file(mpirun.folder() + "/asked");
  EXPECT_LE(std::count(std::istreambuf_iterator<char>(file), {}, 'x'), 1);
}

TEST(HostsTest, FewerRanksFillTheFirstHosts) {
  const auto first = [](int64_t ranks) {
    return HostsText(FirstRanks(Hosts("a:4,b:4"), ranks));
  };
  EXPECT_EQ(first(8), "a:4,b:4");
  EXPECT_EQ(first(6), "a:4,b:2");
  EXPECT_EQ(first(4), "a:4");
  EXPECT_EQ(RanksOn(Hosts("a:4,b:3")), 7);
}

}  // namespace
}  // namespace trireme
