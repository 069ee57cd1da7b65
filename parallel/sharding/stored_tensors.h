// Logical tensors in a checkpoint's files, which the ranks wrote themselves.
//
// What one rank wrote for all is "model.safetensors". Otherwise each rank that
// has parts wrote them into a file of its own,
// "model-00002-of-00004.safetensors" for rank 1 of 4, under their tensors'
// names; a part that is not all of its tensor has the shape that it has on the
// rank. model.index.json says where the parts of each tensor are:
//
//   {"version": 1, "tensors": {NAME: {"shape": [SIZE, ..], "parts": [
//     {"file": FILE, "shards": [[DIM, PARTS, INDEX], ..],
//      "begin": FIRST, "end": AFTER_LAST}, ..]}}}
//
// Dims are cut one after the other into equal parts; begin and end count the
// elements of the shard that comes of it.

#ifndef TRIREME_PARALLEL_SHARDING_STORED_TENSORS_H_
#define TRIREME_PARALLEL_SHARDING_STORED_TENSORS_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "parallel/grid/context.h"
#include "parallel/sharding/logical_tensors.h"
#include "runtime/checkpoint/safetensors.h"

namespace trireme {

// What a rank writes of a set of logical tensors.
struct StoredFile {
  // "model-00002-of-00004.safetensors"; empty on a rank without parts.
  std::string name;
  // In the order of the file.
  std::vector<TensorPart> parts;
  // On world rank 0, if several ranks write: its name and content.
  std::string index_name;
  std::string index;
};

// `name`: "model.safetensors", what the file is called if one rank writes all.
// Of ranks that hold the same part the first writes it. Collective over the
// world. Errors (the same on all ranks): parts of a name that do not make up
// its tensor.
absl::StatusOr<StoredFile> LayOutStoredFile(ParallelContext& context,
                                            const std::string& name,
                                            std::vector<TensorPart> parts);

// Of the parts, those that a rank writes, in the order of its file.
std::vector<TensorPart> WrittenParts(const ProcessGrid& grid,
                                     std::vector<TensorPart> parts);
// A part as it lies in the file.
SafetensorsEntry EntryOf(const TensorPart& part);

// Read by one thread. Hostile until validated, as safetensors are.
class StoredTensors {
 public:
  // `path`: FOLDER/model.safetensors, whether one rank wrote that file or
  // several wrote others and an index.
  static bool Exist(const std::string& path);
  // Of "model.safetensors": "model.index.json".
  static std::string IndexName(const std::string& name);
  static absl::StatusOr<std::unique_ptr<StoredTensors>> Open(
      const std::string& path);

  // Sorted.
  std::vector<std::string> Names() const;

  // Elements of a tensor, neighbours from `begin` on.
  struct Run {
    int64_t begin = 0;
    std::span<const std::byte> bytes;
  };
  struct Whole {
    DType dtype = DType::kFloat32;
    Shape shape;
    // In order, without holes.
    std::vector<Run> runs;

    // How many of the `count` elements from `begin` on the runs have before
    // the first that they leave out.
    int64_t CountFrom(int64_t begin, int64_t count) const;

    // Calls visit(bytes, done) for the bytes of `count` elements from `begin`
    // on, in order; `done`: elements that came before.
    template <typename Visit>
    void ForEachPiece(int64_t begin, int64_t count, Visit visit) const {
      const int64_t size = DTypeSize(dtype);
      auto run = std::upper_bound(
          runs.begin(), runs.end(), begin,
          [](int64_t at, const Run& run) { return at < run.begin; });
      // The last that begins at or before it.
      if (count > 0) --run;
      for (int64_t done = 0; done < count; ++run) {
        const auto bytes =
            run->bytes.subspan((begin + done - run->begin) * size);
        const int64_t elements =
            std::min(count - done, static_cast<int64_t>(bytes.size()) / size);
        visit(bytes.first(elements * size), done);
        done += elements;
      }
    }
  };
  // Valid until the next call. Opens the files that it lies in. Errors:
  // NotFound; DataLoss where parts do not make up the tensor.
  absl::StatusOr<const Whole*> Find(const std::string& name) const;

  // Fills this rank's part, from FilesOf(part) alone. Errors: those of Find;
  // another shape or type.
  absl::Status Read(const TensorPart& part) const;

  // The names of the files that elements of the part may lie in, sorted.
  // Errors: NotFound.
  absl::StatusOr<std::vector<std::string>> FilesOf(
      const TensorPart& part) const;

  // For errors.
  const std::string& path() const { return path_; }

 private:
  struct Part {
    std::string file;
    std::vector<ShardedDim> shards;
    int64_t begin = 0;
    int64_t end = 0;
  };
  struct Entry {
    Shape shape;
    std::vector<Part> parts;
  };

  StoredTensors(std::string folder, std::string path)
      : folder_(std::move(folder)), path_(std::move(path)) {}
  absl::Status ParseIndex(const std::string& text);
  absl::StatusOr<const SafetensorsFile*> OpenFile(
      const std::string& name) const;
  // Those of `parts` that may have elements in common with `wanted`.
  static std::vector<Part> PartsNear(const Entry& entry,
                                     const TensorPart& wanted);
  // The runs of the entry's parts, in order. Errors: DataLoss where two have an
  // element in common.
  absl::StatusOr<Whole> Assemble(const std::string& name,
                                 const Entry& entry) const;
  absl::StatusOr<const Entry*> EntryOfName(const std::string& name) const;
  // What Read reads from: Find's, or as much of it as the part needs.
  absl::StatusOr<const Whole*> FindNear(const TensorPart& part) const;

  const std::string folder_;
  const std::string path_;
  std::map<std::string, Entry> index_;
  bool indexed_ = false;
  mutable std::map<std::string, std::unique_ptr<SafetensorsFile>> files_;
  mutable std::string found_name_;
  mutable std::unique_ptr<Whole> found_;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_SHARDING_STORED_TENSORS_H_
