#include "runtime/comm/mpi/watchdog.h"

#include <algorithm>
#include <utility>

#include "fmt/format.h"
#include "runtime/comm/hang_table.h"
#include "runtime/comm/mpi/messages.h"
#include "runtime/core/timeouts.h"

namespace trireme {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kPeriod{50};
// While the table is being made.
constexpr milliseconds kAlarmedPeriod{2};
constexpr Timeouts kTimeouts;

constexpr int kMaxMessageBytes = 1 << 20;

}  // namespace

MpiWatchdog::MpiWatchdog(MpiEngine& engine, int rank, int size)
    : engine_(engine), rank_(rank), size_(size) {
  int provided = MPI_THREAD_SINGLE;
  MPI_Query_thread(&provided);
  any_thread_ = provided == MPI_THREAD_MULTIPLE;
  engine_.Exclusively([&] {
    CheckMpi(MPI_Comm_dup(MPI_COMM_WORLD, &control_), "creating the watchdog");
    MPI_Comm_set_errhandler(control_, MPI_ERRORS_RETURN);
  });
  thread_ = std::thread([this] { Run(); });
}

MpiWatchdog::~MpiWatchdog() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stop_.notify_all();
  thread_.join();
  engine_.Exclusively([&] { MPI_Comm_free(&control_); });
}

void MpiWatchdog::AwaitAll() {
  engine_.registry().SetFinished();
  MPI_Request request = MPI_REQUEST_NULL;
  engine_.Exclusively(
      [&] { CheckMpi(MPI_Ibarrier(control_, &request), "ending the job"); });
  int complete = 0;
  while (true) {
    engine_.Exclusively([&] {
      CheckMpi(MPI_Test(&request, &complete, MPI_STATUS_IGNORE),
               "ending the job");
    });
    if (complete) return;
    std::this_thread::sleep_for(milliseconds(1));
  }
}

void MpiWatchdog::Run() {
  Clock::time_point last_look = Clock::now();
  while (true) {
    const bool alarmed = alarmed_at_.has_value() || !reports_.empty();
    {
      std::unique_lock lock(mutex_);
      if (stop_.wait_for(lock, alarmed ? kAlarmedPeriod : kPeriod,
                         [&] { return stopping_; })) {
        return;
      }
    }
    if (engine_.TryExclusively([this] { Look(); })) {
      last_look = Clock::now();
    } else if (any_thread_ && Clock::now() - last_look > kTimeouts.stuck) {
      Look();
    }
  }
}

void MpiWatchdog::Look() {
  if (!alarmed_at_.has_value()) {
    if (const std::optional<std::string> alarm = engine_.registry().Alarm()) {
      Alarm(*alarm);
    }
  }
  std::erase_if(sending_, [](Message& message) {
    int complete = 0;
    MPI_Test(&message.request, &complete, MPI_STATUS_IGNORE);
    return complete != 0;
  });
  ReceiveMessages();
  if (!reports_.empty()) Conclude();
  if (alarmed_at_.has_value() &&
      Clock::now() - *alarmed_at_ > kTimeouts.rank_zero) {
    reports_.resize(size_);
    reports_[rank_] = engine_.registry().Report();
    AbortJob(fmt::format(
        "world rank 0 does not react to an alarm; rank {} alone knows:\n{}",
        rank_, HangTable(reports_)));
  }
}

void MpiWatchdog::Alarm(const std::string& text) {
  alarmed_at_ = Clock::now();
  std::string headline = fmt::format("rank {}: {}", rank_, text);
  if (rank_ == 0) {
    Collect(std::move(headline));
  } else {
    Send(0, Tag::kAlarm, std::move(headline));
  }
}

void MpiWatchdog::ReceiveMessages() {
  while (true) {
    int there = 0;
    MPI_Status status;
    const int result =
        MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, control_, &there, &status);
    if (result != MPI_SUCCESS || !there) break;
    int bytes = 0;
    MPI_Get_count(&status, MPI_BYTE, &bytes);
    // Of a longer one only the beginning comes, which no report is.
    bytes = std::clamp(bytes, 0, kMaxMessageBytes);
    Message& message = receiving_.emplace_back();
    message.data.resize(bytes);
    message.source = status.MPI_SOURCE;
    message.tag = static_cast<Tag>(status.MPI_TAG);
    MPI_Irecv(message.data.data(), bytes, MPI_BYTE, status.MPI_SOURCE,
              status.MPI_TAG, control_, &message.request);
  }
  for (auto message = receiving_.begin(); message != receiving_.end();) {
    int complete = 0;
    MPI_Test(&message->request, &complete, MPI_STATUS_IGNORE);
    if (!complete) {
      ++message;
      continue;
    }
    Handle(*message);
    message = receiving_.erase(message);
  }
}

void MpiWatchdog::Handle(const Message& message) {
  switch (message.tag) {
    case Tag::kAlarm:
      Collect(message.data);
      return;
    case Tag::kQuestion:
      Send(message.source, Tag::kReport,
           EncodeHangReport(engine_.registry().Report()));
      return;
    case Tag::kReport: {
      std::optional<HangReport> report = DecodeHangReport(message.data);
      if (reports_.empty() || !report.has_value()) return;
      report->rank = message.source;
      reports_[message.source] = std::move(report);
      return;
    }
  }
}

void MpiWatchdog::Send(int to, Tag tag, std::string data) {
  Message& message = sending_.emplace_back();
  message.data = std::move(data);
  MPI_Isend(message.data.data(), static_cast<int>(message.data.size()),
            MPI_BYTE, to, static_cast<int>(tag), control_, &message.request);
}

void MpiWatchdog::Collect(std::string headline) {
  if (!reports_.empty()) return;
  headline_ = std::move(headline);
  collecting_since_ = Clock::now();
  reports_.resize(size_);
  reports_[0] = engine_.registry().Report();
  for (int rank = 1; rank < size_; ++rank) Send(rank, Tag::kQuestion, "");
}

void MpiWatchdog::Conclude() {
  const bool all =
      std::all_of(reports_.begin(), reports_.end(),
                  [](const auto& report) { return report.has_value(); });
  if (!all && Clock::now() - collecting_since_ < kTimeouts.answer) return;
  AbortJob(fmt::format("{}\n{}", headline_, HangTable(reports_)));
}

}  // namespace trireme
