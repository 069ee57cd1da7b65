#include "models/data/held_out.h"

#include <string>
#include <utility>
#include <vector>

#include "runtime/core/log.h"

namespace trireme {
namespace {

class DatasetShare : public Dataset {
 public:
  DatasetShare(std::unique_ptr<Dataset> whole, int64_t held_out, Share share)
      : whole_(std::move(whole)), held_out_(held_out), share_(share) {}

  int64_t size() const override {
    return share_ == Share::kHeldOut ? held_out_ : whole_->size() - held_out_;
  }
  int64_t num_classes() const override { return whole_->num_classes(); }
  std::string class_name(int64_t class_id) const override {
    return whole_->class_name(class_id);
  }
  uint64_t IndexHash() const override { return whole_->IndexHash(); }
  absl::StatusOr<Sample> ReadParts(int64_t index,
                                   const SampleParts& parts) const override {
    CHECK(index >= 0 && index < size()) << index;
    return whole_->ReadParts(IndexInWhole(index), parts);
  }
  absl::StatusOr<PictureSize> ReadSize(int64_t index) const override {
    CHECK(index >= 0 && index < size()) << index;
    return whole_->ReadSize(IndexInWhole(index));
  }
  // What the whole knows of its files is of all of them.
  std::vector<absl::StatusOr<PictureSize>> ReadSizes() const override {
    const std::vector<absl::StatusOr<PictureSize>> of_whole =
        whole_->ReadSizes();
    std::vector<absl::StatusOr<PictureSize>> sizes;
    for (int64_t i = 0; i < size(); ++i) {
      sizes.push_back(of_whole[IndexInWhole(i)]);
    }
    return sizes;
  }

 private:
  // Samples of this share among the first n of the whole.
  int64_t CountBefore(int64_t n) const {
    const auto held_out = static_cast<int64_t>(static_cast<__int128>(n) *
                                               held_out_ / whole_->size());
    return share_ == Share::kHeldOut ? held_out : n - held_out;
  }

  // The least i with index + 1 samples of this share among the first i + 1.
  int64_t IndexInWhole(int64_t index) const {
    int64_t low = index;
    int64_t high = whole_->size() - 1;
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      if (CountBefore(middle + 1) > index) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  }

  std::unique_ptr<Dataset> whole_;
  int64_t held_out_;
  Share share_;
};

}  // namespace

std::unique_ptr<Dataset> TakeShare(std::unique_ptr<Dataset> whole,
                                   int64_t count, Share share) {
  CHECK(count > 0 && count < whole->size()) << count;
  return std::make_unique<DatasetShare>(std::move(whole), count, share);
}

}  // namespace trireme
