//! The colours. Colour only where it says something, and never colour alone.

use egui::Color32;

/// What a colour says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    /// Nothing in particular.
    #[default]
    Plain,
    /// It recedes.
    Weak,
    /// Good: runs, frees, is quick.
    Good,
    /// Somebody should look at it.
    Warn,
    /// Something is wrong, slow or lost.
    Bad,
    /// What can be clicked, what is chosen.
    Accent,
}

/// All colours of one theme.
#[derive(Debug)]
pub struct Palette {
    /// Behind the tree.
    pub ground: Color32,
    /// Behind bars and side panels.
    pub panel: Color32,
    /// Buttons, tabs, pills.
    pub raised: Color32,
    /// The same under the pointer.
    pub hover: Color32,
    /// Text fields.
    pub field: Color32,
    /// Lines between things.
    pub line: Color32,
    /// Lines around what is pointed at.
    pub line_strong: Color32,
    /// Text.
    pub text: Color32,
    /// Text that recedes.
    pub weak: Color32,
    /// Marks that recede further (not for text).
    pub faint: Color32,
    /// What can be clicked, what is chosen.
    pub accent: Color32,
    /// The primary button.
    pub primary: Color32,
    /// Text on the primary and the destructive button.
    pub on_primary: Color32,
    /// The destructive button.
    pub danger: Color32,
    /// Bars of bytes.
    pub bar: Color32,
    /// Behind bars.
    pub track: Color32,
    /// The chosen row.
    pub selected: Color32,
    /// The row under the pointer.
    pub pointed: Color32,
    /// The row of Now.
    pub now: Color32,
    /// The strip of what needs somebody.
    pub strip: Color32,
    /// The dot of a snapshot.
    pub dot: Color32,
    /// Good.
    pub good: Color32,
    /// Somebody should look.
    pub warn: Color32,
    /// Wrong, slow or lost.
    pub bad: Color32,
}

const fn rgb(hex: u32) -> Color32 {
    Color32::from_rgb((hex >> 16) as u8, (hex >> 8) as u8, hex as u8)
}

const DARK: Palette = Palette {
    ground: rgb(0x12161b),
    panel: rgb(0x191e25),
    raised: rgb(0x262c35),
    hover: rgb(0x313945),
    field: rgb(0x11151a),
    line: rgb(0x2a313a),
    line_strong: rgb(0x465060),
    text: rgb(0xe4e8ee),
    weak: rgb(0x949eab),
    faint: rgb(0x525c68),
    accent: rgb(0x6cabf7),
    primary: rgb(0x2461b4),
    on_primary: rgb(0xffffff),
    danger: rgb(0xa8393b),
    bar: rgb(0x4376bb),
    track: rgb(0x222933),
    selected: rgb(0x1d2b47),
    pointed: rgb(0x191f27),
    now: rgb(0x15251e),
    strip: rgb(0x251f14),
    dot: rgb(0x5b83c4),
    good: rgb(0x4fbe8d),
    warn: rgb(0xf0b04a),
    bad: rgb(0xf07373),
};

const LIGHT: Palette = Palette {
    ground: rgb(0xffffff),
    panel: rgb(0xf5f6f8),
    raised: rgb(0xffffff),
    hover: rgb(0xe9edf2),
    field: rgb(0xffffff),
    line: rgb(0xdde1e7),
    line_strong: rgb(0xb3bcc8),
    text: rgb(0x1b222b),
    weak: rgb(0x5d6875),
    faint: rgb(0xa9b2bd),
    accent: rgb(0x1b62bd),
    primary: rgb(0x1f66c4),
    on_primary: rgb(0xffffff),
    danger: rgb(0xb52f31),
    bar: rgb(0x5a8fd8),
    track: rgb(0xe6eaef),
    selected: rgb(0xdfeafb),
    pointed: rgb(0xf4f7fa),
    now: rgb(0xe8f5ee),
    strip: rgb(0xfdf5e3),
    dot: rgb(0x4b7ac4),
    good: rgb(0x16784d),
    warn: rgb(0x865400),
    bad: rgb(0xc22f2f),
};

impl Palette {
    /// The dark or the light one.
    pub fn of(dark: bool) -> &'static Self {
        if dark { &DARK } else { &LIGHT }
    }

    /// The colour for a tone.
    pub fn tone(&self, tone: Tone) -> Color32 {
        match tone {
            Tone::Plain => self.text,
            Tone::Weak => self.weak,
            Tone::Good => self.good,
            Tone::Warn => self.warn,
            Tone::Bad => self.bad,
            Tone::Accent => self.accent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn luminance(c: Color32) -> f64 {
        let linear = |v: u8| {
            let v = f64::from(v) / 255.0;
            if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(c.r()) + 0.7152 * linear(c.g()) + 0.0722 * linear(c.b())
    }

    fn contrast(a: Color32, b: Color32) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn all_text_can_be_read() {
        for p in [&DARK, &LIGHT] {
            for ground in [p.ground, p.panel, p.selected, p.now, p.strip] {
                for text in [p.text, p.weak, p.good, p.warn, p.bad, p.accent] {
                    let c = contrast(ground, text);
                    assert!(c >= 4.5, "{text:?} on {ground:?} has contrast {c:.2}");
                }
            }
            assert!(contrast(p.primary, p.on_primary) >= 4.5);
            assert!(contrast(p.danger, p.on_primary) >= 4.5);
        }
    }
}
