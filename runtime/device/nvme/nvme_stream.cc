#include "runtime/device/nvme/nvme_stream.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <system_error>
#include <utility>

#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr int64_t kBlockBytes = Extents::kBlockBytes;

}  // namespace

class NvmeStream::Point final : public Event::Work {
 public:
  void Reach() {
    {
      const std::lock_guard lock(mutex_);
      reached_ = true;
    }
    changed_.notify_all();
  }
  void Wait() override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return reached_; });
  }
  bool Test() override {
    const std::lock_guard lock(mutex_);
    return reached_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool reached_ = false;  // guarded by mutex_
};

NvmeStream::NvmeStream(std::shared_ptr<Extents> extents,
                       std::unique_ptr<IoEngine> engine, std::byte* block)
    : Stream(/*synchronous=*/false),
      extents_(std::move(extents)),
      engine_(std::move(engine)),
      block_(block),
      thread_([this] { Run(); }) {
  Register({block, kBlockBytes});
}

NvmeStream::~NvmeStream() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void NvmeStream::Enqueue(std::function<void()> work) {
  {
    const std::lock_guard lock(mutex_);
    work_.push_back(std::move(work));
  }
  changed_.notify_all();
}

Event NvmeStream::Record() {
  auto point = std::make_shared<Point>();
  Enqueue([point] { point->Reach(); });
  return Event(std::move(point));
}

void NvmeStream::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return ends_ || !work_.empty(); });
    if (work_.empty()) return;
    {
      const std::function<void()> work = std::move(work_.front());
      work_.pop_front();
      lock.unlock();
      work();
    }
    lock.lock();
  }
}

void NvmeStream::CopyBytes(void* to, const void* from, int64_t bytes) {
  const bool write = extents_->Has(to);
  CHECK(write != extents_->Has(from)) << "a copy within the drive, or beside";
  const int64_t offset = extents_->OffsetOf(write ? to : from);
  // Memory that is written from is not changed.
  auto* const memory =
      static_cast<std::byte*>(write ? const_cast<void*>(from) : to);
  Launch([=, this] { Copy(write, offset, memory, bytes); });
}

void NvmeStream::ZeroBytes(void* to, int64_t bytes) {
  const int64_t offset = extents_->OffsetOf(to);
  Launch([=, this] { Copy(/*write=*/true, offset, nullptr, bytes); });
}

void NvmeStream::Register(std::span<std::byte> memory) {
  Launch([this, memory] {
    registered_.push_back(memory);
    takes_registered_ = engine_->Register(registered_);
  });
}

std::string NvmeStream::Describe() {
  Synchronize();
  return fmt::format("{}{}", engine_->name(),
                     takes_registered_ ? " with registered buffers" : "");
}

void NvmeStream::Copy(bool write, int64_t offset, std::byte* memory,
                      int64_t bytes) {
  absl::Status status = extents_->status();
  while (status.ok() && bytes > 0) {
    const int64_t in_block = offset % kBlockBytes;
    const bool whole = memory != nullptr && in_block == 0 &&
                       bytes >= kBlockBytes && Aligned(memory);
    const int64_t count = whole ? bytes / kBlockBytes * kBlockBytes
                                : std::min(bytes, kBlockBytes - in_block);
    status = whole ? Move(write, offset, memory, count)
                   : CopyPart(write, offset, memory, count);
    offset += count;
    bytes -= count;
    if (memory != nullptr) memory += count;
  }
  if (!status.ok()) extents_->Fail(std::move(status));
}

bool NvmeStream::Aligned(const std::byte* memory) const {
  return !extents_->direct() ||
         reinterpret_cast<uintptr_t>(memory) % Extents::kAlignment == 0;
}

absl::Status NvmeStream::CopyPart(bool write, int64_t offset, std::byte* memory,
                                  int64_t bytes) {
  const int64_t in_block = offset % kBlockBytes;
  const int64_t block = offset - in_block;
  if (!write || bytes < kBlockBytes) {
    if (!write || extents_->Written(block)) {
      RETURN_IF_ERROR(Move(/*write=*/false, block, block_, kBlockBytes));
    } else {
      std::memset(block_, 0, kBlockBytes);
    }
  }
  if (!write) {
    std::memcpy(memory, block_ + in_block, static_cast<size_t>(bytes));
    return absl::OkStatus();
  }
  if (memory != nullptr) {
    std::memcpy(block_ + in_block, memory, static_cast<size_t>(bytes));
  } else {
    std::memset(block_ + in_block, 0, static_cast<size_t>(bytes));
  }
  return Move(/*write=*/true, block, block_, kBlockBytes);
}

absl::Status NvmeStream::Move(bool write, int64_t offset, std::byte* memory,
                              int64_t bytes) {
  // By id: what is left of each request under way.
  std::array<IoRequest, IoEngine::kDepth> requests;
  std::vector<int> free;
  for (int id = 0; id < IoEngine::kDepth; ++id) free.push_back(id);
  absl::Status status;
  int64_t started = 0;
  while (started < bytes || free.size() < requests.size()) {
    while (status.ok() && started < bytes && !free.empty()) {
      const int id = free.back();
      free.pop_back();
      requests[id] = {.write = write,
                      .offset = offset + started,
                      .data = memory + started,
                      .bytes = kBlockBytes,
                      .id = id};
      // One block's checksum is taken while others are under way.
      if (write) extents_->Note(offset + started, memory + started);
      engine_->Start(requests[id]);
      started += kBlockBytes;
    }
    if (free.size() == requests.size()) break;
    const IoResult result = engine_->Finish();
    IoRequest& request = requests[result.id];
    if (result.bytes == -EINTR || result.bytes == -EAGAIN) {
      engine_->Start(request);
      continue;
    }
    // Of a request that went in part the rest is asked for again.
    const int64_t moved =
        result.bytes == request.bytes
            ? result.bytes
            : result.bytes / Extents::kAlignment * Extents::kAlignment;
    if (moved <= 0) {
      status.Update(ErrorOf(request, result.bytes));
      free.push_back(result.id);
      continue;
    }
    request.offset += moved;
    request.data += moved;
    request.bytes -= moved;
    if (request.bytes > 0) {
      engine_->Start(request);
      continue;
    }
    (write ? extents_->written_bytes : extents_->read_bytes) += kBlockBytes;
    if (!write) {
      status.Update(extents_->Check(request.offset - kBlockBytes,
                                    request.data - kBlockBytes));
    }
    free.push_back(result.id);
  }
  return status;
}

absl::Status NvmeStream::ErrorOf(const IoRequest& request,
                                 int64_t result) const {
  const char* const action = request.write ? "write" : "read";
  if (result >= 0) {
    return extents_->Error(absl::StatusCode::kDataLoss, request.offset,
                           fmt::format("cannot {}: found {} bytes, expected {}",
                                       action, result, request.bytes));
  }
  const int error = static_cast<int>(-result);
  return extents_->Error(error == ENOSPC ? absl::StatusCode::kResourceExhausted
                                         : absl::StatusCode::kUnavailable,
                         request.offset,
                         fmt::format("cannot {}: {}", action,
                                     std::generic_category().message(error)));
}

}  // namespace trireme
