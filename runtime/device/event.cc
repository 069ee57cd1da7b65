#include "runtime/device/event.h"

#include "runtime/device/device.h"
#include "runtime/device/stream.h"

namespace trireme {

void Event::Wait(Stream& stream) {
  if (!work_) return;
  if (work_->OrderBefore(stream)) {
    *this = Event();
    return;
  }
  stream.Launch([event = std::exchange(*this, Event())] { event.Block(); });
}

void Event::Wait() {
  if (device_ != nullptr) {
    Wait(device_->stream());
  } else {
    Synchronize();
  }
}

}  // namespace trireme
