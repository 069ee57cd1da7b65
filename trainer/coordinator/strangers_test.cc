// A thousand connections of strangers to a coordinator: none learns or changes
// anything, and who may call is heard beside them.

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/core/processes.h"
#include "trainer/coordinator/coordinator_client.h"
#include "trainer/coordinator/coordinator_server.h"
#include "trainer/coordinator/few_files_testing.h"
#include "trainer/coordinator/job_watch.h"
#include "trainer/coordinator/launch_record.h"
#include "trainer/coordinator/rank_reporter.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr int kStrangers = 1000;
constexpr char kFolder[] = "runs/not-for-strangers";

// What a connection of HTTP/2 begins with: the preface, and empty settings.
std::string Preface() {
  return std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") +
         std::string("\0\0\0\4\0\0\0\0\0", 9);
}

// What strangers begin with, and then say no more.
std::vector<std::string> Openings() {
  return {
      "",
      Preface(),
      Preface().substr(0, 10),
      "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n",
      // A frame of 16 MB, of which nothing comes.
      Preface() + std::string("\377\377\377\0\0\0\0\0\1", 9),
      std::string(4096, '\377'),
  };
}

int NewSocket() { return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); }

int Connect(const std::string& endpoint, const std::string& opening,
            int client = NewSocket()) {
  int port = 0;
  EXPECT_TRUE(
      absl::SimpleAtoi(endpoint.substr(endpoint.rfind(':') + 1), &port));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
  EXPECT_EQ(
      connect(client, reinterpret_cast<sockaddr*>(&address), sizeof(address)),
      0);
  send(client, opening.data(), opening.size(), MSG_NOSIGNAL);
  fcntl(client, F_SETFL, O_NONBLOCK);
  return client;
}

// Adds what has come to `heard`; whether the other side has closed.
bool IsClosed(int client, std::string& heard) {
  std::array<char, 4096> bytes{};
  for (;;) {
    const ssize_t count = recv(client, bytes.data(), bytes.size(), 0);
    if (count <= 0) return count == 0 || errno != EAGAIN;
    heard.append(bytes.data(), count);
  }
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

class StrangersTest : public ::testing::Test {
 protected:
  StrangersTest()
      : watch_(kFolder, JobWatch::Clock::now()),
        server_(CoordinatorServer::Start(watch_, "127.0.0.1:0").value()) {}

  // A rank and a person are heard.
  void ExpectService() {
    RankReporter rank(
        {.coordinator = {.address = server_->address()}, .world_size = 1});
    CoordinatorClient person(server_->address());
    EXPECT_TRUE(Eventually([&] {
      const auto status = person.GetStatus();
      return status.ok() && status->ranks_size() == 1;
    }));
    EXPECT_TRUE(Eventually([&] { return person.GiveOrder(Order::SAVE).ok(); }));
    EXPECT_TRUE(Eventually([&] { return rank.Take().save; }));
    EXPECT_FALSE(rank.Take().stop);
  }

  JobWatch watch_;
  std::unique_ptr<CoordinatorServer> server_;
};

TEST_F(StrangersTest, WhoConnectsAndDoesNotCallIsLetGoAndHindersNobody) {
  if (AllowOpenFiles(2 * kStrangers + 200) < 2 * kStrangers + 200) {
    GTEST_SKIP() << "too few open files are allowed";
  }
  const std::vector<std::string> openings = Openings();
  std::vector<int> clients;
  for (int i = 0; i < kStrangers; ++i) {
    clients.push_back(
        Connect(server_->address().endpoint, openings[i % openings.size()]));
  }
  ExpectService();
  std::string heard;
  EXPECT_TRUE(Eventually([&] {
    int open = 0;
    for (size_t i = 0; i < clients.size(); ++i) {
      // Who speaks HTTP/2 might yet call, and is let go later.
      const bool speaks = openings[i % openings.size()].starts_with(Preface());
      if (!IsClosed(clients[i], heard) && !speaks) ++open;
    }
    return open == 0;
  }));
  for (const int client : clients) close(client);
  EXPECT_THAT(heard, Not(HasSubstr(server_->address().token)));
  EXPECT_THAT(heard, Not(HasSubstr(kFolder)));
  EXPECT_EQ(watch_.Status({}).orders().stops(), 0);
}

// A launch that no longer accepts anyone would lose its ranks at their next
// start.
TEST_F(StrangersTest, WhoTakesAllFilesThatMayBeOpenHindersNobodyAfterwards) {
  constexpr int kFiles = 50;
  std::vector<int> clients(2 * kFiles);
  for (int& client : clients) client = NewSocket();
  {
    const FewFiles few(kFiles);
    for (const int client : clients) {
      Connect(server_->address().endpoint, Preface(), client);
    }
    std::this_thread::sleep_for(std::chrono::seconds(1));
  }
  for (const int client : clients) close(client);
  ExpectService();
}

TEST_F(StrangersTest, AThousandGuessesAreRefused) {
  int refused = 0;
  for (int i = 0; i < kStrangers; ++i) {
    CoordinatorAddress guess = server_->address();
    guess.token[i % guess.token.size()] ^= 1;
    CoordinatorClient stranger(guess);
    const absl::Status status = i % 3 == 0 ? stranger.GiveOrder(Order::STOP)
                                : i % 3 == 1
                                    ? stranger.GetStatus().status()
                                    : stranger.Report(RankReport()).status();
    if (absl::IsUnauthenticated(status)) ++refused;
    EXPECT_THAT(std::string(status.message()), Not(HasSubstr(kFolder)));
  }
  EXPECT_EQ(refused, kStrangers);
  EXPECT_EQ(watch_.Status({}).ranks_size(), 0);
  EXPECT_EQ(watch_.Status({}).orders().stops(), 0);
  ExpectService();
}

}  // namespace
}  // namespace trireme
