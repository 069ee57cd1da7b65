#include "runtime/device/nvme/nvme_device.h"

#include <limits>
#include <span>
#include <utility>

#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "runtime/device/nvme/aligned.h"
#include "runtime/device/nvme/nvme_stream.h"
#include "runtime/ops/kernels.h"

namespace trireme {
namespace {

// Reads and writes.
constexpr int kStreams = 2;

// No kernel reaches a drive: a call of one ends the process where it is made.
Device::KernelTables NoKernels() {
  static const Kernels none{};
  return {.real = none, .dry = CpuKernelTables().dry};
}

// One extent after the other; none is given up before the end.
class ExtentSource final : public MemorySource {
 public:
  explicit ExtentSource(const Extents& extents) : extents_(extents) {}

  void* Reuse(int64_t) override { return nullptr; }
  void* Allocate(int64_t bytes) override {
    const int64_t begin = end_;
    end_ += Extents::WholeBlocks(bytes);
    return end_ <= extents_.bytes() ? extents_.begin() + begin : nullptr;
  }
  void Free(void*, int64_t) override {}
  int64_t kept_bytes() const override { return 0; }
  void GiveBack() override {}

 private:
  const Extents& extents_;
  int64_t end_ = 0;
};

// A block for each stream, aligned.
std::vector<Tensor> BlocksOn(Device& host) {
  std::vector<Tensor> blocks;
  for (int i = 0; i < kStreams; ++i) {
    blocks.push_back(EmptyAligned(host, Extents::kBlockBytes, DType::kUint8,
                                  MemoryCategory::kWorkspace,
                                  "block on its way to or from the drive"));
  }
  return blocks;
}

}  // namespace

absl::StatusOr<std::unique_ptr<NvmeDevice>> NvmeDevice::Open(
    const Options& options, Device& host) {
  ASSIGN_OR_RETURN(
      std::unique_ptr<Extents> created,
      Extents::Create(options.folder, options.bytes, options.owner));
  const std::shared_ptr<Extents> extents = std::move(created);
  std::vector<Tensor> blocks = BlocksOn(host);
  RETURN_IF_ERROR(host.status());
  std::vector<std::shared_ptr<Stream>> made;
  for (const Tensor& block : blocks) {
    std::unique_ptr<IoEngine> engine;
    if (options.engine) {
      ASSIGN_OR_RETURN(engine, options.engine(extents->descriptor()));
    } else {
      engine = MakeIoEngine(extents->descriptor());
    }
    made.push_back(std::make_shared<NvmeStream>(
        extents, std::move(engine), static_cast<std::byte*>(block.raw_data())));
  }
  Streams streams;
  streams.fill(made[0]);
  streams[static_cast<int>(StreamKind::kCopyOut)] = made[1];
  return std::unique_ptr<NvmeDevice>(new NvmeDevice(
      extents, std::move(blocks), std::make_unique<ExtentSource>(*extents),
      extents->bytes(), std::move(streams)));
}

std::unique_ptr<NvmeDevice> NvmeDevice::Dry(Device& host) {
  Streams streams;
  streams.fill(std::make_shared<Stream>());
  return std::unique_ptr<NvmeDevice>(
      new NvmeDevice(nullptr, BlocksOn(host), nullptr,
                     std::numeric_limits<int64_t>::max(), std::move(streams)));
}

NvmeDevice::NvmeDevice(std::shared_ptr<Extents> extents,
                       std::vector<Tensor> blocks,
                       std::unique_ptr<MemorySource> memory,
                       int64_t limit_bytes, Streams streams)
    : Device(extents ? "nvme" : "dry nvme", /*on_host=*/false, limit_bytes,
             std::move(memory), NoKernels(), std::move(streams)),
      extents_(std::move(extents)),
      blocks_(std::move(blocks)) {}

NvmeDevice::~NvmeDevice() { Synchronize(); }

absl::Status NvmeDevice::drive_status() const {
  RETURN_IF_ERROR(status());
  return extents_ ? extents_->status() : absl::OkStatus();
}

void NvmeDevice::Register(const Tensor& buffer) {
  if (dry() || buffer.device().dry()) return;
  const std::span<std::byte> memory(static_cast<std::byte*>(buffer.raw_data()),
                                    static_cast<size_t>(buffer.bytes()));
  for (const StreamKind kind : {StreamKind::kCopyIn, StreamKind::kCopyOut}) {
    static_cast<NvmeStream&>(stream(kind)).Register(memory);
  }
}

std::string NvmeDevice::Describe() {
  CHECK(extents_ != nullptr);
  return fmt::format(
      "{}, {} the page cache",
      static_cast<NvmeStream&>(stream(StreamKind::kCopyIn)).Describe(),
      extents_->direct() ? "past" : "through");
}

}  // namespace trireme
