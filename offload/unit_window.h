// Units that lie on a drive and pass through the host's memory on their way to
// the device (ZeRO-Infinity, Rajbhandari et al., section 5.2.2): a window of
// buffers holds those that come next in the order in which a step copies them.
// A unit is read into the buffer whose unit will then have its next use
// furthest ahead (Belady's rule, which reads least), as soon as that is not
// needed any more. What an update has written is on its way to the drive and to
// the device at once.
//
// Nothing but events orders reads, writes and copies; the host waits only for
// what it is about to change itself.

#ifndef TRIREME_OFFLOAD_UNIT_WINDOW_H_
#define TRIREME_OFFLOAD_UNIT_WINDOW_H_

#include <cstdint>
#include <string>
#include <vector>

#include "offload/device_buffers.h"
#include "runtime/device/event.h"
#include "runtime/device/stream.h"
#include "runtime/device/stream_stopwatch.h"
#include "runtime/device/tensor.h"

namespace trireme {

// That a drive was read and written.
struct DriveBytes {
  int64_t read = 0;
  int64_t written = 0;
};

class UnitWindow {
 public:
  // `count` sets of buffers in the memory of `host`, each large enough for any
  // unit. Both devices outlive it.
  UnitWindow(Device& host, Device& drive, int count,
             std::vector<DeviceBuffers::Buffer> largest);
  ~UnitWindow() { Settle(); }
  UnitWindow(const UnitWindow&) = delete;
  UnitWindow& operator=(const UnitWindow&) = delete;

  // Of all buffers, which stay where they are.
  std::vector<Tensor> memory() const;

  // Makes room for a unit on the drive; returns its number. Nothing is there
  // until it is written for the first time. `updates_read`: an update needs
  // what was there before it.
  int Add(const std::vector<DeviceBuffers::Buffer>& set, bool updates_read,
          const std::string& label);
  // Where it lies. To be read and written after Settle, until the next use of
  // the unit.
  const std::vector<Tensor>& OnDrive(int unit) const {
    return units_[unit].stored;
  }

  // Units in the order in which a step takes them, which is that of each.
  void set_order(std::vector<int> order);

  // The unit's tensors for copies by `stream`, which comes after their arrival;
  // starts to read those after it. Until TookUntil, which says when the last
  // copy is done.
  const std::vector<Tensor>& Take(int unit, Stream& stream);
  void TookUntil(int unit, Event last_copy);

  // An update of the unit comes before it is taken for the first time in the
  // next step: what is on the drive will be old.
  void ExpectUpdate(int unit) { units_[unit].expects_update = true; }
  // The unit's tensors for the host, which waits for them; elements are
  // anything unless an update needs them (`read`: whatever it needs), or where
  // nothing was written yet. Until another unit is used.
  const std::vector<Tensor>& Open(int unit, bool read = false);
  // All that is to be changed of it was: it is written now, or, if it is not to
  // be done `now`, when its buffer is needed.
  void Changed(int unit, bool now = true);
  // What was opened stays as it was.
  void Unchanged(int unit);

  // What was changed is on the drive, and nothing is under way: OnDrive may be
  // used. Copies to the device must be over.
  void Settle();

  // So far, started ones included.
  const DriveBytes& moved() const { return moved_; }
  // For which streams that take units have waited for reads, and the drive was
  // at work, of what is over.
  double waited_s() const { return waits_.seconds(); }
  double read_s() const { return reads_.seconds(); }
  double write_s() const { return writes_.seconds(); }

 private:
  static constexpr int kNone = -1;

  struct Unit {
    std::vector<Tensor> stored;
    bool updates_read = false;
    bool written = false;  // ever
    bool expects_update = false;
    Event last_write;
    std::vector<int> uses;  // positions in order_, ascending
  };
  struct Buffer {
    std::vector<Tensor> memory;
    int unit = kNone;
    // Its tensors of that unit.
    std::vector<Tensor> tensors;
    // Opened without its elements, and not all changed yet.
    bool partial = false;
    bool dirty = false;  // not written yet
    Event arrival;
    Event last_copy;
    Event last_write;
  };

  Buffer* Find(int unit);
  // How many uses of units come before the unit's next, of those after the
  // `from` that come.
  int64_t Distance(int unit, int64_t from) const;
  // Whose unit has its next use furthest ahead.
  Buffer& Furthest();
  // Gives the buffer to the unit; what it has changed is written before.
  void Assign(Buffer& buffer, int unit);
  void Read(Buffer& buffer);
  void Write(Buffer& buffer);
  // The units to come that no buffer has, as long as those that give way to
  // them are not to be used before.
  void ReadAhead();

  Device& host_;
  Device& drive_;
  std::vector<Unit> units_;
  std::vector<Buffer> buffers_;
  std::vector<int> order_;
  int64_t next_ = 0;  // in order_: the use to come
  DriveBytes moved_;
  StreamStopwatch waits_;
  StreamStopwatch reads_;
  StreamStopwatch writes_;
};

}  // namespace trireme

#endif  // TRIREME_OFFLOAD_UNIT_WINDOW_H_
