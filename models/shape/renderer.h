// Pictures of meshes that a person can judge: shaded by a soft sky, on a
// ground that shows the contact shadow.

#ifndef TRIREME_MODELS_SHAPE_RENDERER_H_
#define TRIREME_MODELS_SHAPE_RENDERER_H_

#include <array>
#include <vector>

#include "models/image/image.h"
#include "models/shape/mesh.h"

namespace trireme {

struct RenderOptions {
  int side = 256;  // pixels, of a square picture
  // Where the camera is: degrees around the vertical axis from the front (the
  // positive z axis), and above the horizon. It looks at the origin and sees
  // what lies within 1.5 of it.
  double azimuth = 35;
  double elevation = 22;
  // Per pixel: `antialias`² rays, and for each so many into the sky.
  int antialias = 2;
  int sky_rays = 16;
  std::array<float, 3> color = {0.62f, 0.70f, 0.80f};
  // Interpolates normals over edges of less than 40 degrees, but where more
  // than 64 triangles meet.
  bool smooth = true;
  bool ground = true;
};

// The mesh is a repaired one within the cube (NormalizeMesh). RGB. The same
// mesh gives the same picture, with any number of threads.
Image RenderMesh(const Mesh& mesh, const RenderOptions& options = {});

// `views` pictures from all around, beginning with options.azimuth.
std::vector<Image> RenderTurntable(const Mesh& mesh, int views,
                                   const RenderOptions& options = {});

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_RENDERER_H_
