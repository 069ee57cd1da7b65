// Points on and about a shape: what models are trained from and compared by.
//
// Every value is a function of the stream and of its own index: the same for
// any number of threads and whatever else is drawn. Any thread.

#ifndef TRIREME_MODELS_SHAPE_POINT_SAMPLES_H_
#define TRIREME_MODELS_SHAPE_POINT_SAMPLES_H_

#include <cstdint>
#include <vector>

#include "models/shape/mesh.h"
#include "runtime/core/philox.h"

namespace trireme {

struct SurfaceSamples {
  std::vector<Vector3f> points;
  std::vector<Vector3f> normals;  // of length 1
};

// Uniform by area. The mesh is a repaired one.
SurfaceSamples SampleSurface(const Mesh& mesh, int64_t count,
                             const RandomStream& random);

// Points of the surface, each moved by normal noise of standard deviation
// `near` (those of even index) or `far`.
std::vector<Vector3f> NearSurfacePoints(const Mesh& mesh, int64_t count,
                                        const RandomStream& random,
                                        double near = 0.005, double far = 0.05);

// Uniform in the cube [-half_extent, half_extent]³.
std::vector<Vector3f> UniformPoints(int64_t count, const RandomStream& random,
                                    double half_extent = 1);

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_POINT_SAMPLES_H_
