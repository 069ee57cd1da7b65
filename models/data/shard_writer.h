// Writes samples as WebDataset shards (docs/formats/shards.md): the same
// samples give the same bytes, on every machine and at every time.

#ifndef TRIREME_MODELS_DATA_SHARD_WRITER_H_
#define TRIREME_MODELS_DATA_SHARD_WRITER_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/data/dataset.h"

namespace trireme {

// The tar file of one shard as it grows in memory.
class TarWriter {
 public:
  // Adds a file. `name` is at most 100 bytes; content less than 8 GiB.
  void Add(const std::string& name, const std::string& content);

  // What was added since the last call, to be written before what follows.
  std::string Take();
  // The same with the file's end mark.
  std::string Finish();

  int64_t size_bytes() const { return static_cast<int64_t>(bytes_.size()); }

 private:
  std::string bytes_;
};

struct ShardWriterOptions {
  // A new folder, or one without .tar files.
  std::string folder;
  int64_t samples_per_shard = 1000;
  // Of WriteShards: read and encode so many samples at once. 0: as many as the
  // machine has processors. The shards are the same with any number.
  int threads = 0;
};

// A sample as the files of a shard hold it.
struct EncodedSample {
  std::string picture;  // PNG; empty where there are latents
  std::string latents;  // SerializeLatents; empty: none
  int64_t class_id = -1;
  std::string caption;
  std::string tokens;  // SerializeTextTokens; empty: none
  std::string pooled;  // SerializePooledText; empty: none
  std::string layers;  // SerializeTextLayers; empty: none
};

// Errors: a picture, caption or text states that reading a shard would refuse.
absl::StatusOr<EncodedSample> EncodeSample(const Sample& sample);
// The same without the picture.
absl::StatusOr<EncodedSample> EncodeConditions(const Sample& sample);
// Adds its members, named STEM.ENDING.
void AddMembers(const std::string& stem, const EncodedSample& sample,
                TarWriter& tar);

// Writes folder/shard-000000.tar and so on, each beside its name and renamed
// when it is full, and at the end folder/classes.txt.
class ShardWriter {
 public:
  // Makes the folder. Errors: there are shards in it already.
  static absl::StatusOr<ShardWriter> Create(const ShardWriterOptions& options);

  absl::Status Add(const EncodedSample& sample);

  // Writes the last shard and the names of the classes (none: no file).
  // Errors: a name with a line break.
  absl::Status Finish(const std::vector<std::string>& class_names);

  int64_t samples() const { return samples_; }
  int64_t shards() const { return shards_; }

 private:
  explicit ShardWriter(const ShardWriterOptions& options) : options_(options) {}

  absl::Status WriteShard();

  ShardWriterOptions options_;
  TarWriter tar_;
  int64_t samples_ = 0;
  int64_t shards_ = 0;
  int64_t in_shard_ = 0;
};

// Writes FOLDER/classes.txt, class 0 first; of no classes nothing. Errors: a
// name with a line break.
absl::Status WriteClassNames(const std::string& folder,
                             const std::vector<std::string>& class_names);
std::vector<std::string> ClassNamesIn(const Dataset& dataset);

struct ShardSummary {
  int64_t samples = 0;
  int64_t skipped = 0;
  int64_t shards = 0;
};

// Copies a whole data set into shards. Samples that cannot be read, or could
// not be from a shard, are skipped, counted and named in the log; none readable
// is an error. `progress` is told the number of samples done, after each.
absl::StatusOr<ShardSummary> WriteShards(
    const Dataset& dataset, const ShardWriterOptions& options,
    const std::function<void(int64_t)>& progress = {});

}  // namespace trireme

#endif  // TRIREME_MODELS_DATA_SHARD_WRITER_H_
