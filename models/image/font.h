// The bitmap font behind DrawText (canvas.h).

#ifndef TRIREME_MODELS_IMAGE_FONT_H_
#define TRIREME_MODELS_IMAGE_FONT_H_

namespace trireme {

// True if the dot (column 0..4, row 0..8) of a character is set.
bool GlyphDot(char character, int column, int row);

}  // namespace trireme

#endif  // TRIREME_MODELS_IMAGE_FONT_H_
