// Where everything of a run lies. See docs/running.md.

#ifndef TRIREME_TRAINER_RUN_RUN_FOLDER_H_
#define TRIREME_TRAINER_RUN_RUN_FOLDER_H_

#include <filesystem>
#include <string>
#include <system_error>
#include <utility>

namespace trireme {

class RunFolder {
 public:
  // "runs/a/" is "runs/a": copies in memory are known by its name.
  explicit RunFolder(std::string root) : root_(std::move(root)) {
    while (root_.size() > 1 && root_.back() == '/') root_.pop_back();
  }

  const std::string& root() const { return root_; }
  std::string job() const { return root_ + "/job.textproto"; }
  std::string plan() const { return root_ + "/plan.textproto"; }
  std::string classes() const { return root_ + "/classes.txt"; }
  std::string data_record() const { return root_ + "/data.json"; }
  std::string buckets() const { return root_ + "/buckets.tsv"; }
  std::string metrics() const { return root_ + "/metrics.jsonl"; }
  std::string health_log() const { return root_ + "/health.log"; }
  std::string tensorboard() const { return root_ + "/tensorboard"; }
  std::string checkpoints() const { return root_ + "/checkpoints"; }
  // What tells the run's copies in memory from others' (memory_copies.h).
  std::string memory_copies() const { return root_ + "/memory_copies"; }
  std::string samples() const { return root_ + "/samples"; }
  std::string trace() const { return root_ + "/trace"; }

 private:
  std::string root_;
};

// Files of a checkpoint's folder; those of tensors are what StoredTensors
// (parallel/sharding/stored_tensors.h) opens, however many ranks wrote them.
inline constexpr char kWeightsFile[] = "model.safetensors";
inline constexpr char kEmaFile[] = "ema.safetensors";
inline constexpr char kFirstMomentFile[] = "adam_m.safetensors";
inline constexpr char kSecondMomentFile[] = "adam_v.safetensors";
inline constexpr char kManifestFile[] = "manifest.json";

// Whether `path` looks like the folder of one checkpoint.
inline bool IsCheckpoint(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path + "/" + kManifestFile, error);
}

}  // namespace trireme

#endif  // TRIREME_TRAINER_RUN_RUN_FOLDER_H_
