//! What a virtual source carries: one stream, or the encodings of one picture. Never decides which; the management
//! thread says what there is, [`gate`](super::gate) which of it a receiver gets.

/// The ingress lists a virtual source carries in one version of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inputs {
    lists: [u32; Inputs::MAX],
    len: u8,
    /// Whether the lists are encodings of one picture, of which each receiver gets one.
    layered: bool,
    /// Another number whenever the source carries something else than before: a stream that comes back after it was
    /// away is told from one that never left.
    pub epoch: u32,
}

impl Inputs {
    /// Most lists at a time.
    pub const MAX: usize = sluice_table::Source::MAX_LAYERS;

    /// One stream, forwarded to every receiver.
    pub fn one(list: u32, epoch: u32) -> Self {
        let mut lists = [u32::MAX; Inputs::MAX];
        lists[0] = list;
        Inputs { lists, len: 1, layered: false, epoch }
    }

    /// Encodings of one picture, lowest first; `None` without any. Those above [`MAX`](Self::MAX) are left out.
    pub fn layers(of: &[u32], epoch: u32) -> Option<Self> {
        let mut lists = [u32::MAX; Inputs::MAX];
        let len = of.len().min(Inputs::MAX);
        lists[..len].copy_from_slice(&of[..len]);
        (len > 0).then_some(Inputs { lists, len: len as u8, layered: true, epoch })
    }

    /// The lists, lowest layer first.
    #[inline(always)]
    pub fn lists(&self) -> &[u32] {
        &self.lists[..usize::from(self.len).min(Inputs::MAX)]
    }

    /// Which of the lists this is; the layer, if there are layers.
    #[inline(always)]
    pub fn position(&self, list: u32) -> Option<u8> {
        self.lists().iter().position(|l| *l == list).map(|at| at as u8)
    }

    /// Whether each receiver gets one of several encodings.
    #[inline(always)]
    pub fn is_layered(&self) -> bool {
        self.layered
    }
}
