#include "runtime/checkpoint/file_exchange.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <limits>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include "runtime/core/file.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

constexpr int64_t kPieceBytes = 4 << 20;
constexpr int kTag = 0;

// Files one after the other, in pieces: the bytes of the next one, and what
// becomes of them.
class Channel {
 public:
  virtual ~Channel() = default;

  void Add(ExchangedFile file) { files_.push_back(std::move(file)); }

  // Of the next piece, at most kPieceBytes; 0 where nothing is left.
  int64_t NextBytes() {
    // Nothing of an empty file travels.
    while (!files_.empty() && done_ == files_.front().content.bytes) End();
    if (files_.empty()) return 0;
    return std::min(kPieceBytes, files_.front().content.bytes - done_);
  }
  // The piece that NextBytes told of: to be filled before it is sent, or as it
  // was received.
  void Handle(std::byte* data, int64_t bytes) {
    if (done_ == 0) Note(Begin(files_.front()));
    Note(Move(data, bytes));
    done_ += bytes;
  }
  const absl::Status& status() const { return status_; }

 protected:
  virtual absl::Status Begin(const ExchangedFile& file) = 0;
  virtual absl::Status Move(std::byte* data, int64_t bytes) = 0;
  virtual absl::Status Finish(const ExchangedFile& file) = 0;

 private:
  void End() {
    if (done_ == 0) Note(Begin(files_.front()));
    Note(Finish(files_.front()));
    files_.pop_front();
    done_ = 0;
  }
  void Note(const absl::Status& status) { status_.Update(status); }

  std::deque<ExchangedFile> files_;
  int64_t done_ = 0;  // bytes of the first
  absl::Status status_;
};

absl::Status SystemError(std::string_view action, const std::string& path) {
  return Unavailable("{}: cannot {}: {}", path, action, std::strerror(errno));
}

class Sender final : public Channel {
 public:
  ~Sender() override { Close(); }

 private:
  absl::Status Begin(const ExchangedFile& file) override {
    path_ = file.path;
    descriptor_ = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    return descriptor_ < 0 ? SystemError("open", path_) : absl::OkStatus();
  }
  // Whatever is sent of a file that cannot be read, the other end sees that it
  // is not the file.
  absl::Status Move(std::byte* data, int64_t bytes) override {
    if (descriptor_ < 0) return absl::OkStatus();
    while (bytes > 0) {
      const ssize_t count = read(descriptor_, data, bytes);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return SystemError("read", path_);
      if (count == 0) return DataLoss("{}: ends early", path_);
      data += count;
      bytes -= count;
    }
    return absl::OkStatus();
  }
  absl::Status Finish(const ExchangedFile&) override {
    Close();
    return absl::OkStatus();
  }
  void Close() {
    if (descriptor_ >= 0) close(std::exchange(descriptor_, -1));
  }

  std::string path_;
  int descriptor_ = -1;
};

class Receiver final : public Channel {
 private:
  absl::Status Begin(const ExchangedFile& file) override {
    absl::StatusOr<AtomicFile> created = AtomicFile::Create(file.path);
    if (created.ok()) writing_.emplace(Writing{.file = *std::move(created)});
    return created.status();
  }
  absl::Status Move(std::byte* data, int64_t bytes) override {
    if (!writing_.has_value()) return absl::OkStatus();
    const std::string_view piece(reinterpret_cast<const char*>(data), bytes);
    writing_->checksum.Update(piece);
    const absl::Status status = writing_->file.Append(piece);
    if (!status.ok()) writing_.reset();
    return status;
  }
  absl::Status Finish(const ExchangedFile& file) override {
    if (!writing_.has_value()) return absl::OkStatus();
    const CheckpointFile found = writing_->checksum.Result();
    absl::Status status =
        found == file.content
            ? writing_->file.Commit()
            : DataLoss("{}: received checksum {}, expected {}", file.path,
                       found.xxh64, file.content.xxh64);
    writing_.reset();
    return status;
  }

  struct Writing {
    AtomicFile file;
    Checksum checksum = {};
  };
  std::optional<Writing> writing_;
};

// By the rank at the other end.
template <typename T>
std::map<int, T> ChannelsOf(const std::vector<ExchangedFile>& files) {
  std::map<int, T> channels;
  for (const ExchangedFile& file : files) channels[file.peer].Add(file);
  return channels;
}

}  // namespace

absl::Status ExchangeFiles(Communicator& group,
                           const std::vector<ExchangedFile>& sent,
                           const std::vector<ExchangedFile>& received) {
  auto senders = ChannelsOf<Sender>(sent);
  auto receivers = ChannelsOf<Receiver>(received);
  CpuDevice host(std::numeric_limits<int64_t>::max());
  const auto piece = [&](int64_t bytes) {
    return Tensor::Empty(host, {bytes}, DType::kUint8,
                         MemoryCategory::kCommunication, "piece of a file");
  };
  struct Arriving {
    Receiver* receiver;
    Tensor data;
    Event event;
  };
  // In each round one piece of every channel: a rank comes to a round only when
  // all of its pieces of the one before have arrived, hence nobody waits in a
  // circle.
  for (bool more = true; more;) {
    std::vector<Arriving> arriving;
    for (auto& [peer, receiver] : receivers) {
      const int64_t bytes = receiver.NextBytes();
      if (bytes == 0) continue;
      Tensor data = piece(bytes);
      Event event = group.Receive(data, peer, kTag, "piece of a file");
      arriving.push_back({&receiver, std::move(data), std::move(event)});
    }
    std::vector<Event> leaving;
    for (auto& [peer, sender] : senders) {
      const int64_t bytes = sender.NextBytes();
      if (bytes == 0) continue;
      const Tensor data = piece(bytes);
      sender.Handle(static_cast<std::byte*>(data.raw_data()), bytes);
      leaving.push_back(group.Send(data, peer, kTag, "piece of a file"));
    }
    for (Arriving& piece : arriving) {
      piece.event.Synchronize();
      piece.receiver->Handle(static_cast<std::byte*>(piece.data.raw_data()),
                             piece.data.bytes());
    }
    for (Event& event : leaving) event.Synchronize();
    more = !arriving.empty() || !leaving.empty();
  }
  absl::Status status;
  for (const auto& [peer, receiver] : receivers) {
    status.Update(receiver.status());
  }
  for (const auto& [peer, sender] : senders) status.Update(sender.status());
  return status;
}

}  // namespace trireme
