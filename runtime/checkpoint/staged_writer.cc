#include "runtime/checkpoint/staged_writer.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>

#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr int64_t kMostPieceBytes = 4 << 20;

}  // namespace

StagedWriter::StagedWriter(Tensor buffer)
    : buffer_(std::move(buffer)),
      data_(static_cast<std::byte*>(buffer_.raw_data())) {
  CHECK(data_ != nullptr);
  thread_ = std::thread([this] { Run(); });
}

StagedWriter::~StagedWriter() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void StagedWriter::Give(Task task) {
  {
    const std::lock_guard lock(mutex_);
    used_ += task.bytes;
    tasks_.push_back(std::move(task));
  }
  changed_.notify_all();
}

void StagedWriter::Begin(std::string path,
                         std::vector<SafetensorsEntry> entries) {
  Give({.run = [this, path = std::move(path), entries = std::move(entries)] {
    auto file = SafetensorsWriter::Create(path, entries, {{"format", "pt"}});
    if (file.ok()) {
      file_ = *std::move(file);
      path_ = path;
    }
    return file.status();
  }});
}

void StagedWriter::Append(const std::string& name, const Tensor& tensor) {
  const auto* const source = static_cast<const std::byte*>(tensor.raw_data());
  const int64_t capacity = buffer_.bytes();
  // Two pieces at least, so that one is copied while another is written.
  const int64_t most = std::clamp<int64_t>(capacity / 2, 1, kMostPieceBytes);
  for (int64_t done = 0; done < tensor.bytes();) {
    int64_t free = 0;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return used_ < capacity; });
      free = capacity - used_;
    }
    const int64_t bytes =
        std::min({most, free, capacity - head_, tensor.bytes() - done});
    std::byte* const piece = data_ + head_;
    if (tensor.device().on_host()) {
      // Whatever its streams are at meanwhile.
      std::memcpy(piece, source + done, bytes);
    } else {
      tensor.device().stream().CopyBytes(piece, source + done, bytes);
      tensor.device().stream().Synchronize();
    }
    Give({.run = [this, name, piece,
                  bytes] { return file_->Append(name, piece, bytes); },
          .bytes = bytes});
    head_ = (head_ + bytes) % capacity;
    done += bytes;
  }
}

void StagedWriter::End() {
  Give({.run = [this]() -> absl::Status {
    ASSIGN_OR_RETURN(CheckpointFile written, file_->Commit());
    file_.reset();
    const std::lock_guard lock(mutex_);
    written_[path_] = std::move(written);
    return absl::OkStatus();
  }});
}

void StagedWriter::Then(std::function<absl::Status()> task) {
  Give({.run = std::move(task)});
}

bool StagedWriter::Idle() const {
  const std::lock_guard lock(mutex_);
  return tasks_.empty() && !busy_;
}

void StagedWriter::WaitUntilIdle() const {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return tasks_.empty() && !busy_; });
}

absl::StatusOr<std::map<std::string, CheckpointFile>> StagedWriter::Finish() {
  WaitUntilIdle();
  const std::lock_guard lock(mutex_);
  const absl::Status status = std::exchange(status_, absl::OkStatus());
  std::map<std::string, CheckpointFile> written = std::exchange(written_, {});
  RETURN_IF_ERROR(status);
  return written;
}

void StagedWriter::Run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return ending_ || !tasks_.empty(); });
    if (ending_) return;
    const Task task = std::move(tasks_.front());
    tasks_.pop_front();
    busy_ = true;
    const bool go = status_.ok();
    lock.unlock();
    absl::Status status;
    if (go) status = task.run();
    // What is half written goes.
    if (!status.ok()) file_.reset();
    lock.lock();
    if (!status.ok()) status_ = std::move(status);
    used_ -= task.bytes;
    busy_ = false;
    changed_.notify_all();
  }
}

}  // namespace trireme
