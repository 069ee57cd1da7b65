// Writing tensors behind the work that goes on with them: they are copied into
// a buffer of fixed size, and a thread of its own writes files from there.
//
// What fits into the buffer costs whoever gives it a copy's time; the rest
// waits until the disk has made room.

#ifndef TRIREME_RUNTIME_CHECKPOINT_STAGED_WRITER_H_
#define TRIREME_RUNTIME_CHECKPOINT_STAGED_WRITER_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/checkpoint/checksum.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/device/tensor.h"

namespace trireme {

// Used by one thread at a time.
class StagedWriter {
 public:
  // `buffer`: a tensor of a device of the host that is not dry; its bytes are
  // the buffer.
  explicit StagedWriter(Tensor buffer);
  // Gives up what is not written yet, of which no file is left.
  ~StagedWriter();
  StagedWriter(const StagedWriter&) = delete;
  StagedWriter& operator=(const StagedWriter&) = delete;

  int64_t staging_bytes() const { return buffer_.bytes(); }

  // A safetensors file: its tensors are appended in the order of
  // SafetensorsWriter, whole, from devices whose streams are done.
  void Begin(std::string path, std::vector<SafetensorsEntry> entries);
  void Append(const std::string& name, const Tensor& tensor);
  void End();
  // Done by the thread after all that was given before, unless some of that
  // failed.
  void Then(std::function<absl::Status()> task);

  // Whether nothing is left to do.
  bool Idle() const;
  void WaitUntilIdle() const;
  // Waits for that. The files that were written since the last call, synced, by
  // path; or the first error since then, and what was given after it was not
  // done.
  absl::StatusOr<std::map<std::string, CheckpointFile>> Finish();

 private:
  struct Task {
    std::function<absl::Status()> run;
    int64_t bytes = 0;  // of the buffer, free afterwards
  };

  void Give(Task task);
  void Run();

  const Tensor buffer_;
  std::byte* const data_;
  int64_t head_ = 0;  // where the next byte goes
  // The thread's.
  std::unique_ptr<SafetensorsWriter> file_;
  std::string path_;

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::deque<Task> tasks_;
  bool busy_ = false;
  bool ending_ = false;
  int64_t used_ = 0;  // bytes of the buffer
  absl::Status status_;
  std::map<std::string, CheckpointFile> written_;
  std::thread thread_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_CHECKPOINT_STAGED_WRITER_H_
