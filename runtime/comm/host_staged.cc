#include "runtime/comm/host_staged.h"

#include <limits>
#include <utility>

#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

// A tensor of the host, whose device lives as long: streams may hold it when
// communicators are gone.
struct Staged {
  std::shared_ptr<Device> host;
  Tensor tensor;

  Staged() = default;
  Staged(std::shared_ptr<Device> device, const Tensor& like)
      : host(std::move(device)),
        tensor(Tensor::Empty(*host, like.shape(), like.dtype(),
                             MemoryCategory::kCommunication,
                             "staged message")) {}
};

// An operation on the host's copies of a device's tensors.
class StagedWork final : public Event::Work {
 public:
  // `from` is what the host received, `to` where it belongs; neither of an
  // operation that writes nothing.
  StagedWork(Event operation, Staged from, Tensor to)
      : operation_(std::move(operation)),
        from_(std::move(from)),
        to_(std::move(to)) {}

  void Wait() override {
    Finish();
    copied_.Synchronize();
  }
  bool Test() override {
    if (!operation_.Test()) return false;
    Finish();
    return copied_.Test();
  }
  bool OrderBefore(Stream& stream) override {
    Finish();
    Event copied = copied_;
    copied.Wait(stream);
    return true;
  }

 private:
  // Gives the device the copy of what was received, once.
  void Finish() {
    operation_.Synchronize();
    if (!from_.tensor.defined()) return;
    Device& device = to_.device();
    if (!device.dry()) {
      Stream& stream = device.stream(StreamKind::kCommunication);
      stream.CopyBytes(to_.raw_data(), from_.tensor.raw_data(), to_.bytes());
      // The copy reads it until then.
      stream.Launch([staged = from_] {});
      copied_ = stream.Record();
    }
    from_ = Staged();
  }

  Event operation_;
  Staged from_;
  const Tensor to_;
  Event copied_;
};

class HostStagedCommunicator final : public Communicator {
 public:
  HostStagedCommunicator(std::unique_ptr<Communicator> inner,
                         std::shared_ptr<Device> host)
      : Communicator(inner->rank(), inner->size(), inner->name()),
        inner_(std::move(inner)),
        host_(std::move(host)) {}

  int max_tag() const override { return inner_->max_tag(); }
  void SetActivity(std::string_view activity) override {
    inner_->SetActivity(activity);
  }

 private:
  Event Start(Operation operation) override {
    if (operation.kind == Operation::Kind::kBarrier || operation.dry() ||
        operation.data().device().on_host()) {
      return inner_->Run(std::move(operation));
    }
    Staged input, output;
    if (operation.input.defined()) {
      input = Staged(host_, operation.input);
      Stream& stream = operation.input.device().stream();
      stream.CopyBytes(input.tensor.raw_data(), operation.input.raw_data(),
                       operation.input.bytes());
      stream.Synchronize();
    }
    if (operation.output.defined()) {
      output = operation.in_place() ? input : Staged(host_, operation.output);
    }
    const Tensor target = operation.output;
    operation.input = input.tensor;
    operation.output = output.tensor;
    return Event(std::make_shared<StagedWork>(inner_->Run(std::move(operation)),
                                              std::move(output), target));
  }

  const std::unique_ptr<Communicator> inner_;
  const std::shared_ptr<Device> host_;
};

}  // namespace

HostStagedWorld::HostStagedWorld(CommunicatorFactory& inner)
    : inner_(inner),
      host_(std::make_shared<CpuDevice>(std::numeric_limits<int64_t>::max())) {}

std::unique_ptr<Communicator> HostStagedWorld::Create(
    std::span<const int> ranks, std::string_view name, Progress progress) {
  std::unique_ptr<Communicator> inner = inner_.Create(ranks, name, progress);
  // What has nobody to send to copies on the device.
  if (ranks.size() == 1) return inner;
  return std::make_unique<HostStagedCommunicator>(std::move(inner), host_);
}

}  // namespace trireme
