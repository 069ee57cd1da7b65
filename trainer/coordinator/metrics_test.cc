// What a Prometheus that scrapes a launch gets, and what others get.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <ctime>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/core/status.h"
#include "trainer/coordinator/few_files_testing.h"
#include "trainer/coordinator/metrics_server.h"
#include "trainer/coordinator/metrics_text.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using ::testing::StartsWith;

int Connect(const std::string& endpoint,
            int client = socket(AF_INET, SOCK_STREAM, 0)) {
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
  return client;
}

// What the server says to `request`, until it closes.
std::string Ask(const std::string& endpoint, const std::string& request) {
  const int client = Connect(endpoint);
  EXPECT_EQ(send(client, request.data(), request.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(request.size()));
  std::string reply;
  std::array<char, 1024> bytes{};
  for (ssize_t count = 0;
       (count = recv(client, bytes.data(), bytes.size(), 0)) > 0;) {
    reply.append(bytes.data(), count);
  }
  close(client);
  return reply;
}

TEST(MetricsServerTest, AnswersScrapesAndNothingElse) {
  const auto server = MetricsServer::Start("127.0.0.1:0", [] {
                        return "trireme_step 7\n";
                      }).value();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Ask(server->endpoint(), "GET /metrics HTTP/1.1\r\n\r\n"),
              "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n"
              "Content-Length: 15\r\nConnection: close\r\n\r\n"
              "trireme_step 7\n");
  }
  for (const std::string request :
       {"GET / HTTP/1.1\r\n\r\n", "POST /metrics HTTP/1.1\r\n\r\n",
        "\r\n\r\n"}) {
    EXPECT_THAT(Ask(server->endpoint(), request), StartsWith("HTTP/1.1 404"));
  }
  // One that says nothing is not waited for long.
  EXPECT_THAT(Ask(server->endpoint(), "GET"), StartsWith("HTTP/1.1 404"));
}

// They are not waited for one after the other.
TEST(MetricsServerTest, WhoSaysNothingHoldsUpNobody) {
  const auto server = MetricsServer::Start("127.0.0.1:0", [] {
                        return std::string(1 << 20, 'x');
                      }).value();
  std::vector<int> silent;
  for (int i = 0; i < 300; ++i) {
    silent.push_back(Connect(server->endpoint()));
    // Asks, and does not read the answer.
    const std::string request = "GET /metrics HTTP/1.1\r\n\r\n";
    if (i % 2 == 0) {
      send(silent.back(), request.data(), request.size(), MSG_NOSIGNAL);
    }
  }
  EXPECT_THAT(Ask(server->endpoint(), "GET /metrics HTTP/1.1\r\n\r\n"),
              SizeIs(::testing::Gt(1u << 20)));
  for (const int client : silent) close(client);
}

// Training needs the processor that it would take.
TEST(MetricsServerTest, ItRestsWhereItMayOpenNoMoreFiles) {
  const auto server = MetricsServer::Start("127.0.0.1:0", [] {
                        return std::string("metrics");
                      }).value();
  const int client = socket(AF_INET, SOCK_STREAM, 0);
  {
    const FewFiles none(0);
    Connect(server->endpoint(), client);
    const std::clock_t before = std::clock();
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    EXPECT_LT(std::clock() - before, CLOCKS_PER_SEC / 4);
  }
  EXPECT_THAT(Ask(server->endpoint(), "GET /metrics HTTP/1.1\r\n\r\n"),
              HasSubstr("metrics"));
  close(client);
}

TEST(MetricsServerTest, AnAddressThatIsNoneIsAnError) {
  const auto text = [] { return std::string(); };
  for (const std::string listen : {"9400", "a:1", "127.0.0.1:99999"}) {
    EXPECT_THAT(MessageOf(MetricsServer::Start(listen, text).status()),
                HasSubstr("--metrics: found '" + listen + "'"));
  }
  const auto first = MetricsServer::Start("127.0.0.1:0", text).value();
  EXPECT_THAT(MessageOf(MetricsServer::Start(first->endpoint(), text).status()),
              HasSubstr("cannot listen"));
}

TEST(MetricsTextTest, HasTheLastStepAndEachRank) {
  JobStatus status;
  status.set_age_s(1.5);
  RankStatus& rank = *status.add_ranks();
  rank.set_silent_s(0.25);
  rank.mutable_report()->set_rank(3);
  rank.mutable_report()->set_host("a\"b\\");
  for (const int number : {6, 7}) {
    StepFigures& step = *status.add_steps();
    step.set_step(number);
    step.set_loss(std::numeric_limits<double>::quiet_NaN());
    (*step.mutable_exposed_s())["tp"] = 0.5;
  }
  EXPECT_THAT(MetricsText(status),
              AllOf(HasSubstr("# TYPE trireme_step gauge\ntrireme_step 7\n"),
                    HasSubstr("\ntrireme_loss NaN\n"),
                    HasSubstr("trireme_rank_silent_seconds{rank=\"3\","
                              "host=\"a\\\"b\\\\\"} 0.25\n"),
                    HasSubstr("\ntrireme_time_seconds{cause=\"tp\"} 0.5\n")));
}

}  // namespace
}  // namespace trireme
