// An autoencoder of shapes, of whatever family, evaluated on one rank: what
// models that learn its latents see of shapes, and the fields of what such
// models draw.

#ifndef TRIREME_MODELS_AUTOENCODER_FIELD_AUTOENCODER_H_
#define TRIREME_MODELS_AUTOENCODER_FIELD_AUTOENCODER_H_

#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/autoencoder/latent_encoder.h"
#include "models/data/dataset.h"
#include "models/data/latents.h"
#include "models/shape/marching_cubes.h"
#include "models/weights/tensor_source.h"
#include "runtime/core/shape.h"

namespace trireme {

class FieldAutoencoder {
 public:
  virtual ~FieldAutoencoder() = default;

  // Sets of as many tokens at most as there are channels, of `height` channels
  // each; with a lattice where tokens have places of their own.
  virtual LatentFormat latents() const = 0;
  // Of the weights that it was made of, and of their names.
  virtual absl::StatusOr<std::string> WeightsChecksum(
      const TensorSource& weights) const = 0;
  // Whether latents that no shape was encoded into can be decoded, too. Errors
  // say what it was not trained for.
  virtual absl::Status CheckDecodesDrawn() const { return absl::OkStatus(); }

  // Of a shape's latents. Errors: a sample without what is encoded; out of
  // memory.
  virtual absl::StatusOr<LatentPosterior> Encode(
      const Sample& sample) const = 0;
  // Signed distances of latents [n, channels], which lie at the places of
  // `prompt` where they have some. The autoencoder outlives the function.
  // Errors: places that are none; out of memory.
  virtual absl::StatusOr<PointFunction> Decode(std::span<const float> latents,
                                               const Sample& prompt) const = 0;
  // Decodes on a dry device what takes most memory at a time.
  virtual absl::Status RehearseDecoding() const = 0;

  // What is given back of a shape, [tokens, channels] of `shape`, padded.
  struct GivenBack {
    Shape shape;
    // Beyond which its distances are cut off, and what is taken from those of
    // the data before: shapes may be thickened.
    double cut_off = 0;
    double thickened = 0;
    // Whether it gives back which points are inside, and no distances.
    bool occupancy = false;
  };
  virtual GivenBack given_back() const = 0;
  // Of the means of the sample's latents. Errors: those of Encode.
  virtual absl::StatusOr<std::vector<float>> GiveBack(
      const Sample& sample) const = 0;
  // Signed distances of what was given back of `sample`. The autoencoder
  // outlives the function.
  virtual absl::StatusOr<PointFunction> FieldOf(
      std::span<const float> given_back, const Sample& sample) const = 0;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_AUTOENCODER_FIELD_AUTOENCODER_H_
